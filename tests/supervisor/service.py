"""A real supervisor over tiny children, as a child of the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.ipc.status import ServiceStatus, from_line
from tests.ports import free_port
from tests.waiting import until

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_SECONDS = 60  # with a machine that has much else to do


def conduct(directory: Path, name: str, **facts: object) -> dict[str, str]:
    """A model whose engine behaves as `facts` say (programs/engine.py)."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps(facts))
    return {"name": name, "path": str(path)}


@dataclass
class Supervised:
    """`process` is the supervisor; its log is JSON lines."""

    process: subprocess.Popen[bytes]
    runtime: Path
    log_path: Path
    port: int
    _reader: socket.socket | None = None
    _unread: bytes = b""
    seen: list[ServiceStatus] = field(default_factory=list)

    def wait_for(self, wanted: Callable[[ServiceStatus], bool]) -> ServiceStatus:
        """The first status from now on that is `wanted`; fails where nothing is told any more."""
        while True:
            status = self.next_status()
            if wanted(status):
                return status

    def next_status(self) -> ServiceStatus:
        reader = self._connected()
        while b"\n" not in self._unread:
            data = reader.recv(65536)
            assert data, f"the supervisor has gone:\n{self.log_path.read_text()}"
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        self.seen.append(from_line(line))
        return self.seen[-1]

    def _connected(self) -> socket.socket:
        if self._reader is None:
            self.wait_for_event("service_started")
            # The file is there some instants after the event; nothing announces it.
            connected = until(self._connect)
            assert connected is not None
            self._reader = connected
        return self._reader

    def _connect(self) -> socket.socket | None:
        reader = socket.socket(socket.AF_UNIX)
        reader.settimeout(PATIENCE_SECONDS)
        try:
            reader.connect(str(self.runtime / "status.sock"))
        except (FileNotFoundError, ConnectionRefusedError):
            reader.close()
            return None
        return reader

    def events(self) -> Iterator[dict[str, Any]]:
        """Log events as they come, until the supervisor ends."""
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            with self.log_path.open("ab") as log:
                log.write(raw)
            with contextlib.suppress(ValueError):
                yield json.loads(raw)

    def wait_for_event(self, name: str) -> dict[str, Any]:
        for event in self.events():
            if event["event"] == name:
                return event
        raise AssertionError(f"no {name}:\n{self.log_path.read_text()}")

    def wait(self) -> int:
        """The exit code of a supervisor that ends."""
        return self.process.wait(PATIENCE_SECONDS)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def rest_of_log(self) -> str:
        for _ in self.events():
            pass
        return self.log_path.read_text()


@contextlib.contextmanager
def supervised(
    directory: Path,
    environment: dict[str, str] | None = None,
    download: str | None = None,
    http: tuple[str, ...] = (),
    weigh: list[str] | None = None,
    trial: list[str] | None = None,
    **plan: Any,
) -> Iterator[Supervised]:
    """A supervisor with `plan`, whose `download` reports the given lines."""
    runtime = Path(plan.pop("runtime_dir", directory / "run"))
    port = plan.pop("port", None) or free_port()
    python = sys.executable
    whole = {
        "version": "0",
        "port": port,
        "runtime_dir": str(runtime),
        "log_level": "debug",
        "drain_seconds": 5,
        "commands": {
            "engine": [python, str(PROGRAMS / "engine.py")],
            "http": [python, str(PROGRAMS / "http.py"), *http],
            "download": (
                [python, str(PROGRAMS / "download.py"), download] if download is not None else None
            ),
            "weigh": weigh,
            "trial": trial,
        },
        **plan,
    }
    process = subprocess.Popen(
        [python, "-m", "service.supervisor", json.dumps(whole)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
        | (environment or {}),
    )
    service = Supervised(process, runtime, directory / "log", port)
    try:
        yield service
    finally:
        if service._reader is not None:
            service._reader.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(signal.SIGTERM)
            process.wait(10)
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def processes_of(group_leader: int) -> list[int]:
    """The living processes whose ancestor is, or was when this was called, `group_leader`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                if rest[0] != "Z":
                    parents[int(entry.name)] = int(rest[1])
    found = [group_leader]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
