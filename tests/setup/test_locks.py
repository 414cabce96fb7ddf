"""What gets installed is what somebody has looked at."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from deploy.setup.locks import locked_package, read_lock

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-build.lock"]
SUM = "0" * 64


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_an_exact_version_and_a_hash(name: str) -> None:
    assert read_lock(ROOT / name)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host_and_no_local_path(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|file:|find-links|index-url|/tmp|/home|/root", text)


@pytest.mark.parametrize("name", LOCKS)
def test_markers_hold_for_a_release_candidate_of_python(name: str) -> None:
    """Ubuntu 22.04 has 3.11.0rc1, which satisfies no comparison of python_full_version."""
    assert "python_full_version" not in (ROOT / name).read_text()


def test_the_lock_for_development_holds_what_runs_at_the_same_versions() -> None:
    runs = {(p.name, p.version): p.sha256 for p in read_lock(ROOT / "requirements.lock")}
    develops = {(p.name, p.version): p.sha256 for p in read_lock(ROOT / "requirements-dev.lock")}
    assert runs.items() <= develops.items()


def test_every_dependency_of_the_project_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = {package.name for package in read_lock(ROOT / "requirements-dev.lock")}
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    assert {re.split(r"[^a-zA-Z0-9_-]", line)[0] for line in wanted} <= locked


@pytest.mark.parametrize(
    "line",
    ["numpy>=2", "numpy==2.0", f"numpy --hash=sha256:{SUM}", "numpy==2.0 --hash=md5:00"],
)
def test_a_line_without_version_or_hash_is_refused_by_name(tmp_path: Path, line: str) -> None:
    (tmp_path / "some.lock").write_text(f"{line}\n")
    with pytest.raises(ValueError, match="is not locked") as refusal:
        read_lock(tmp_path / "some.lock")
    assert line in str(refusal.value)


def test_a_package_keeps_its_lines_so_that_pip_can_check_them_again(tmp_path: Path) -> None:
    block = f"numpy==2.0 ; python_version < '4' \\\n    --hash=sha256:{SUM}\n    # via parley\n"
    (tmp_path / "some.lock").write_text(f"# a comment\n{block}other==1 --hash=sha256:{SUM}\n")
    package = locked_package(tmp_path / "some.lock", "numpy")
    assert (package.version, package.sha256) == ("2.0", frozenset({SUM}))
    assert package.text == block


def test_a_package_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "some.lock").write_text(f"numpy==2.0 --hash=sha256:{SUM}\n")
    with pytest.raises(ValueError, match="holds torch 0 times"):
        locked_package(tmp_path / "some.lock", "torch")
