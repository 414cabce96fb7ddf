"""The bill of materials, held to CycloneDX's own schema and to the files it speaks of."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.setup.locks import Locked
from deploy.setup.sbom import bill, licences, main, read_wheel

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def put_wheel(folder: Path, name: str, *metadata: str) -> Path:
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *metadata]
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join(lines) + "\n\nWords.\n")
        archive.writestr(f"{name}/_vendor/other.dist-info/METADATA", "Name: other\n")
    return wheel


def locked(name: str, *via: str) -> Locked:
    asked = "".join(f"    #   {one}\n" for one in via)
    return Locked(name, "1.0", frozenset({"0" * 64}), f"{name}==1.0 \\\n    # via\n{asked}")


def test_it_satisfies_the_schema_and_names_every_file_with_its_hash(tmp_path: Path) -> None:
    upper = put_wheel(tmp_path, "Upper_One", "License-Expression: MIT")
    lower = put_wheel(tmp_path, "lower", "Classifier: License :: OSI Approved :: MIT License")
    builder = put_wheel(tmp_path, "builder")
    packages = [locked("upper-one", "parley (pyproject.toml)"), locked("lower", "upper-one")]
    found = bill(map(read_wheel, (upper, lower, builder)), packages, [lower], "0.1", MADE)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None
    hashes = {part["name"]: part["hashes"][0]["content"] for part in found["components"]}
    assert list(hashes) == ["lower", "upper-one", lower.name]
    assert hashes["upper-one"] == hashlib.sha256(upper.read_bytes()).hexdigest()
    needs = {one["ref"]: one["dependsOn"] for one in found["dependencies"]}
    assert needs["pkg:generic/parley@0.1"] == [read_wheel(upper).purl]
    assert needs[read_wheel(upper).purl] == [read_wheel(lower).purl]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0"], [{"expression": "MIT OR Apache-2.0"}]),
        (
            ["Classifier: License :: OSI Approved :: Apache Software License"],
            [{"license": {"id": "Apache-2.0"}}],
        ),
        (
            ["Classifier: License :: OSI Approved :: BSD License"],
            [{"license": {"name": "BSD License"}}],
        ),
        (["License: MPL-2.0 AND MIT"], [{"license": {"name": "MPL-2.0 AND MIT"}}]),
        ([], []),
    ],
)
def test_a_licence_is_what_the_package_says(
    tmp_path: Path, said: list[str], expected: list[object]
) -> None:
    assert licences(read_wheel(put_wheel(tmp_path, "one", *said)).metadata) == expected


def test_the_same_wheels_make_the_same_bill(tmp_path: Path) -> None:
    wheel = read_wheel(put_wheel(tmp_path, "one"))
    first, second = (bill([wheel], [locked("one")], [], "0.1", MADE) for _ in range(2))
    assert first == second
    assert first["serialNumber"] != bill([wheel], [locked("one")], [], "0.2", MADE)["serialNumber"]


def test_a_file_that_is_no_wheel_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w"):
        pass
    with pytest.raises(ValueError, match=r"x\.whl is not a wheel"):
        read_wheel(tmp_path / "x.whl")


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_wheel(tmp_path, "click", "License-Expression: BSD-3-Clause")
    assert main([str(tmp_path), "--version", "0.1"]) == 0
    assert json.loads(capsys.readouterr().out)["components"][0]["name"] == "click"
