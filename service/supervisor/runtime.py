"""The runtime directory: sockets and metric files, gone when the service is."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from service.supervisor.refusal import Refusal

# A unix socket's path has room for 107 bytes; the longest name we put there is engine-N.sock.
MAX_SOCKET_PATH = 107
LONGEST_NAME = "engine-999999.sock"
# Where workers note which requests engines died on (`service.ipc.suspects`).
SUSPECTS = "suspects"
# Where workers note what they know of the model (`service.ipc.known_model`).
KNOWN_MODEL = "known-model"


@dataclass(frozen=True, slots=True)
class RuntimeDir:
    """A private directory of this service. `ours`: we made it, so we remove it."""

    path: Path
    ours: bool

    @property
    def status_socket(self) -> Path:
        return self.path / "status.sock"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    def engine_socket(self, engine_id: int) -> Path:
        return self.path / f"engine-{engine_id}.sock"

    def forget_engine(self, engine_id: int, pid: int) -> None:
        """Remove what a dead engine leaves: its socket, and what it claimed to be doing now."""
        self.engine_socket(engine_id).unlink(missing_ok=True)
        for claim in self.metrics.glob(f"gauge_live*_{pid}.db"):
            claim.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.ours:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        _empty(self)


def open_runtime_dir(wanted: Path | None, base: str, pid: int) -> RuntimeDir:
    """The directory `wanted`, or a fresh one for `pid` in `base`; empty of an earlier life's files.

    Raises `Refusal` where it cannot be made, is too deep for sockets, or belongs to a service
    that is alive.
    """
    path = wanted or Path(base) / f"parley-{os.getuid()}-{pid}"
    if len(os.fsencode(path / LONGEST_NAME)) > MAX_SOCKET_PATH:
        room = MAX_SOCKET_PATH - len(LONGEST_NAME) - 1
        raise Refusal(
            f"PARLEY_RUNTIME_DIR={path} is too long for the sockets in it; "
            f"it may have {room} bytes."
        )
    ours = not path.exists()
    directory = RuntimeDir(path, ours)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not ours:
            _refuse_living(directory)
            _empty(directory)
        directory.metrics.mkdir(mode=0o700)
    except OSError as error:
        raise Refusal(
            f"The runtime directory {path} cannot be used ({error.strerror}); "
            "PARLEY_RUNTIME_DIR names another one."
        ) from error
    return directory


def prune_dead(base: str) -> list[Path]:
    """Remove what killed services of this user left in `base`; returns what was removed."""
    pattern = re.compile(rf"parley-{os.getuid()}-(\d+)")
    removed = []
    for path in Path(base).glob(f"parley-{os.getuid()}-*"):
        match = pattern.fullmatch(path.name)
        if not match or not _is_own_directory(path):
            continue
        # The number alone is not proof: another container may share the directory.
        if not _is_alive(int(match[1])) and not _answers(path / "status.sock"):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


def _is_own_directory(path: Path) -> bool:
    # The base may be /tmp, where anybody can put a link with our name on it.
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return False


def _refuse_living(directory: RuntimeDir) -> None:
    if _answers(directory.status_socket):
        raise Refusal(
            f"PARLEY_RUNTIME_DIR={directory.path} is in use by another parley; "
            "stop that one, or name another directory."
        )


def _empty(directory: RuntimeDir) -> None:
    """Remove our own names only: the directory may be shared with something we do not know."""
    directory.status_socket.unlink(missing_ok=True)
    for left in directory.path.glob("engine-*.sock"):
        left.unlink(missing_ok=True)
    shutil.rmtree(directory.metrics, ignore_errors=True)
    shutil.rmtree(directory.path / SUSPECTS, ignore_errors=True)
    (directory.path / KNOWN_MODEL).unlink(missing_ok=True)
