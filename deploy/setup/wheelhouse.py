"""Every locked package as a wheel, for a Python that need not be the one here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.markers import Marker, default_environment

from deploy.setup.commands import Pip
from deploy.setup.environment import COMPILED
from deploy.setup.locks import Locked, read_lock
from deploy.setup.wheels import scratch

_MARKER = re.compile(r"^\S+ ; (.+?) *\\?$", re.MULTILINE)


def lines_for(packages: Iterable[Locked], python: str) -> list[str]:
    """Return the lines of a lock that hold for that Python ("3.12") on a machine like this one.

    pip weighs conditions by the Python that it runs in, so they are settled and left out here.
    """
    environment = {name: str(value) for name, value in default_environment().items()}
    environment["python_version"] = python
    environment["python_full_version"] = f"{python}.0"
    lines = []
    for package in packages:
        condition = _MARKER.match(package.text)
        if condition is None or Marker(condition[1]).evaluate(environment):
            hashes = " ".join(f"--hash=sha256:{sha256}" for sha256 in sorted(package.sha256))
            lines.append(f"{package.name}=={package.version} {hashes}\n")
    return lines


def provide_wheels(locks: Sequence[Path], python: str, cache: Path, pip: Pip) -> Path:
    """Return a folder in the cache with all wheels but the compiled one; fetched the first time.

    Raises Failure when one of them cannot be fetched or is not what the lock says.
    """
    packages = [package for lock in locks for package in read_lock(lock)]
    wanted = [package for package in packages if package.name != COMPILED]
    text = "".join(dict.fromkeys(lines_for(wanted, python)))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = cache / "wheelhouse" / f"{python}-{digest}"
    if folder.exists():
        return folder
    pip.say(f"fetching the wheels for Python {python}")
    with scratch(cache) as space:
        chosen = space / "locked.txt"
        chosen.write_text(text)
        pip.run(
            f"fetching the wheels for Python {python}",
            *("download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--python-version", python, "--dest", str(space / "wheels")),
            *("--requirement", str(chosen)),
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        return (space / "wheels").rename(folder)
