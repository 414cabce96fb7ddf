"""The vendors' npm packages, installed once into a cache outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "node"
_INSTALL = "npm ci --no-audit --no-fund --ignore-scripts --loglevel=error"
_INSTALL_SECONDS = 240


def cache() -> Path:
    """Where what tests download is kept between runs."""
    named = os.environ.get("PARLEY_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(base) / "parley"


def node_modules() -> Path:
    """The locked packages. Skips the tests where node, npm or the registry is not there."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not here, which the vendors' npm packages need")
    lock = (FOLDER / "package-lock.json").read_bytes()
    place = cache() / "node-clients" / hashlib.sha256(lock).hexdigest()[:16]
    if not (place / "node_modules").exists():
        _install(place)
    return place / "node_modules"


def _install(place: Path) -> None:
    """Beside its place first, so that half an installation is never used."""
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, beside)
    try:
        done = subprocess.run(
            _INSTALL.split(),
            check=False,
            cwd=beside,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry did not answer in time")
    if done.returncode:
        pytest.skip(f"the npm packages can't be installed here: {done.stderr.strip()[-200:]}")
    if place.exists():  # somebody else was quicker
        shutil.rmtree(beside)
    else:
        beside.rename(place)
