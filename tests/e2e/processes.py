"""Which of a running service's processes is which."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.parley import Parley
from tests.supervisor.service import processes_of


def engine_of(service: Parley, mode: str = "chat") -> int:
    """The one process that has the model of this mode loaded."""
    words = b"-m\0service.engine\0", f"\0--mode\0{mode}\0".encode()
    (found,) = [
        pid
        for pid in processes_of(service.process.pid)
        if all(each in _command(pid) for each in words)
    ]
    return found


def workers_of(service: Parley) -> list[int]:
    """gunicorn's workers, those that live."""
    family = [pid for pid in processes_of(service.process.pid) if b"gunicorn_conf" in _command(pid)]
    return [worker for pid in family for worker in processes_of(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""
