"""A memory limit of the real kind, for processes of a test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until

_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[Path]:
    """A cgroup below our own, so that no limit of ours is escaped; its processes get `size` bytes.

    Skips the test where that is not allowed.
    """
    folder, limit = _below_our_own()
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        if not (folder / limit).exists():
            pytest.skip("the memory controller is not handed down to our cgroup")
        (folder / limit).write_text(str(size))
        yield folder
    finally:
        _remove(folder)


def _below_our_own() -> tuple[Path, str]:
    name = f"parley-test-{os.getpid()}"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _ROOT / "memory" / path.lstrip("/") / name, "memory.limit_in_bytes"
    path = Path("/proc/self/cgroup").read_text().strip().rpartition(":")[2]
    return _ROOT / path.lstrip("/") / name, "memory.max"


def _remove(folder: Path) -> None:
    """A process that has just been killed may still be leaving."""

    def is_gone() -> bool:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return not folder.exists()

    until(is_gone)
