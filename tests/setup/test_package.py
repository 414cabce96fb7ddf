"""What is installed elsewhere carries everything that it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The project's own wheel, built from a copy so that nothing is left in the tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "service", copy / "service", ignore=no_caches)
    built = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(copy / "out"), str(copy)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next((copy / "out").glob("parley-*.whl"))) as archive:
        yield archive


def test_the_package_carries_every_file_of_the_service(wheel: zipfile.ZipFile) -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "service").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert there <= set(wheel.namelist())


def test_the_package_installs_the_command(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "parley = service.__main__:main" in wheel.read(names[0]).decode()
