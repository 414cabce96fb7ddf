"""`python -m deploy.setup.sbom WHEELS…`: the bill of materials of a release, as CycloneDX's JSON.

It is read out of the wheels that are installed, so that hashes and licences are those of the very
files, and out of the lock, which says what asked for what. Packages of the distribution are in its
own database and not listed here. Standard library only: the image makes its own while it is built.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from deploy.setup.locks import Locked, read_lock

OURS = "parley"
# What the index calls licences by words that are one of SPDX's for certain.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense",
}
_VIA = re.compile(r"^\s+#\s+(?:via\s+)?([A-Za-z0-9][A-Za-z0-9._-]*)(?: \(.*\))?\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file that is installed: whose it is, and what its own metadata says."""

    file: str
    name: str
    version: str
    sha256: str
    metadata: Message

    @property
    def purl(self) -> str:
        """The file's address by the package-URL specification; also its reference in the bill."""
        return f"pkg:pypi/{self.name}@{self.version}?file_name={self.file}"


def read_wheel(path: Path) -> Wheel:
    """Return what is to be known of a wheel; ValueError when it has no metadata."""
    with zipfile.ZipFile(path) as archive:
        inside = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        if len(inside) != 1:
            raise ValueError(f"{path} is not a wheel: it holds METADATA {len(inside)} times.")
        metadata = HeaderParser().parsestr(archive.read(inside[0]).decode())
    name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()
    return Wheel(path.name, name, metadata["Version"], _sha256(path), metadata)


def licences(metadata: Message) -> list[dict[str, Any]]:
    """Return CycloneDX's `licenses` of a package: an SPDX expression where it has one, else what
    its classifiers or its licence field say; empty where it says nothing."""
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = metadata.get_all("Classifier", [])
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    if not named and (short := metadata.get("License", "").strip()):
        named = [short.splitlines()[0][:100]]
    found = [{"id": _SPDX[one]} if one in _SPDX else {"name": one} for one in named]
    return [{"license": one} for one in found]


def bill(
    wheels: Iterable[Wheel],
    packages: Sequence[Locked],
    models: Iterable[Path],
    version: str,
    made: datetime,
) -> dict[str, Any]:
    """Return the bill of materials: one component for each file, and who depends on whom.

    Wheels of packages that the lock does not hold (what only builds others) are left out.
    """
    locked = {package.name: package for package in packages}
    used = sorted((w for w in wheels if w.name in locked), key=lambda wheel: wheel.purl)
    root = f"pkg:generic/{OURS}@{version}"
    asked = {name: set(_VIA.findall(package.text)) for name, package in locked.items()}
    needs = {
        reference: [wheel.purl for wheel in used if name in asked[wheel.name]]
        for reference, name in [(root, OURS), *((wheel.purl, wheel.name) for wheel in used)]
    }
    components = [_package(wheel) for wheel in used] + [_model(path) for path in models]
    content = json.dumps([components, needs])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, root + content)}",
        "version": 1,
        "metadata": {
            "timestamp": made.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": OURS,
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": on} for ref, on in needs.items()],
    }


def _package(wheel: Wheel) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": wheel.purl,
        "name": wheel.name,
        "version": wheel.version,
        "description": wheel.metadata.get("Summary", ""),
        "purl": wheel.purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": licences(wheel.metadata),
    }


def _model(path: Path) -> dict[str, Any]:
    digest = _sha256(path)
    return {
        "type": "machine-learning-model",
        "bom-ref": f"sha256:{digest}",
        "name": path.name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str]) -> int:
    """Print the bill of the wheels in the named folders."""
    parser = argparse.ArgumentParser(prog="python -m deploy.setup.sbom", description=main.__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with the installed wheels")
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--model", type=Path, action="append", default=[], help="a model's file")
    parser.add_argument("--version", required=True, help="of Parley itself")
    options = parser.parse_args(arguments)
    wheels = [read_wheel(path) for folder in options.folders for path in folder.glob("*.whl")]
    made = datetime.now(tz=UTC)
    found = bill(wheels, read_lock(options.lock), options.model, options.version, made)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
