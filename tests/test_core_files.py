"""No process that sees contents leaves a core file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = "from service.core_files import forbid_core_files; forbid_core_files(); "
NO_LIMIT = "import resource; resource.setrlimit = lambda *_: None; "
CRASH = "import os; said = 'canary' * 1000; os.abort()"


def allow_core_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def dumps_core(program: str, folder: Path) -> bool:
    """Whether the kernel says that it wrote, or handed on, the memory of what crashed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        preexec_fn=allow_core_files,  # noqa: PLW1509  # there is only this thread
        stderr=subprocess.DEVNULL,
    )
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert os.WIFSIGNALED(status)
    return os.WCOREDUMP(status)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not dumps_core(CRASH, tmp_path):
        pytest.skip("this machine writes no core files whatever a process wants")
    for file in tmp_path.iterdir():
        file.unlink()
    return tmp_path


def test_a_crash_leaves_no_core_file(folder: Path) -> None:
    assert not dumps_core(GUARD + CRASH, folder)
    assert list(folder.iterdir()) == []


def test_nor_does_it_where_the_kernel_does_not_ask_for_the_limit(folder: Path) -> None:
    assert not dumps_core(NO_LIMIT + GUARD + CRASH, folder)
    assert list(folder.iterdir()) == []
