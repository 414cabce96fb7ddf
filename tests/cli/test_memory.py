"""Whether a model fits, on machines made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.memory import check_fits, memory_limit_bytes
from service.domain.errors import ModelFileError
from service.models.gguf import check_model_file
from service.models.registry import BUILT_IN_DIR
from service.settings import EngineSettings

POCKET = check_model_file(BUILT_IN_DIR / "pocket.gguf")
SETTINGS = EngineSettings(gpu_layers=0)
MEGABYTE = 1_000_000


def machine(root: Path, megabytes: int, **files: str) -> Path:
    """A root directory with so much memory; `files` are at their paths with `__` for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal:   {megabytes * MEGABYTE // 1024} kB\n")
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_model_that_fits_is_accepted(tmp_path: Path) -> None:
    check_fits(POCKET, SETTINGS, machine(tmp_path, 8000))


def test_weights_that_do_not_fit_are_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"pocket\.gguf needs about 0\.3 GB .* has 0\.2 GB"):
        check_fits(POCKET, SETTINGS, machine(tmp_path, 200))


def test_too_many_conversations_are_refused_with_what_would_work(tmp_path: Path) -> None:
    settings = EngineSettings(gpu_layers=0, slots=256)
    with pytest.raises(ModelFileError, match=r"256 conversations of 2048 .*PARLEY_ENGINE__SLOTS"):
        check_fits(POCKET, settings, machine(tmp_path, 600))


def test_a_gpu_leaves_the_answer_to_the_load(tmp_path: Path) -> None:
    root = machine(tmp_path, 200, dev__nvidia0="")
    check_fits(POCKET, EngineSettings(gpu_layers=-1), root)
    with pytest.raises(ModelFileError):
        check_fits(POCKET, SETTINGS, root)


def test_the_limit_of_the_own_or_an_outer_control_group_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        8000,
        proc__self__cgroup="0::/system.slice/parley.service\n",
    )
    group = root / "sys/fs/cgroup/system.slice/parley.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("500000000\n")
    assert memory_limit_bytes(root) == 500_000_000


def test_where_nothing_is_known_nothing_is_refused(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path) is None
    check_fits(POCKET, SETTINGS, tmp_path)
