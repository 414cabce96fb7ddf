"""Child processes: started so that they cannot outlive us, read, and buried."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.leash import leave_with
from service.supervisor.journal import Journal
from service.supervisor.loop import Loop

PR_SET_CHILD_SUBREAPER = 36
STATUS_FD = "{status_fd}"
MAX_LINE_BYTES = 1024 * 1024

# Loaded before the first fork: the child must not import anything.
_libc = ctypes.CDLL(None, use_errno=True)

Report = dict[str, Any]


@dataclass(eq=False, slots=True)
class Child:
    """A process of ours in its own process group, whose id is its pid."""

    role: str
    pid: int
    on_report: Callable[[Report], None]
    on_exit: Callable[[int], None]
    reports_fd: int | None = None
    unread: bytearray = field(default_factory=bytearray)

    def signal(self, number: int) -> None:
        """Signal the process; one that has just ended is no fault."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Signal the process and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Children:
    """All of them. `on_exit` is called after the last report of a child has been."""

    def __init__(self, loop: Loop, environment: Mapping[str, str], journal: Journal) -> None:
        self._loop = loop
        self._environment = environment
        self._journal = journal
        self._by_pid: dict[int, Child] = {}
        # Orphans of our children become ours, so that none is left and none is a zombie.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        loop.on_signals([signal.SIGCHLD], lambda _number: self.reap())

    def __len__(self) -> int:
        return len(self._by_pid)

    def spawn(
        self,
        role: str,
        command: Sequence[str],
        on_exit: Callable[[int], None],
        on_report: Callable[[Report], None] | None = None,
        lend: Sequence[int] = (),
    ) -> Child:
        """Start `command`. With `on_report`, `{status_fd}` in it becomes the number of a pipe
        whose JSON lines are reported. `lend` are file descriptors that it inherits."""
        reading = writing = None
        if on_report is not None:
            reading, writing = os.pipe()
        pass_fds = [*lend, *([writing] if writing is not None else [])]
        us = os.getpid()

        def leave_with_parent() -> None:
            leave_with(us)
            # A child in the background may still write to a terminal that has `tostop` set.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)

        try:
            process = subprocess.Popen(  # noqa: S603  # the plan's own commands
                [word.replace(STATUS_FD, str(writing)) for word in command],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=pass_fds,
                process_group=0,
                preexec_fn=leave_with_parent,  # noqa: PLW1509  # there is only this thread
            )
        except OSError:
            if reading is not None:
                os.close(reading)
            raise
        finally:
            if writing is not None:
                os.close(writing)
        process.returncode = 0  # we do the waiting; Popen need not
        child = Child(role, process.pid, on_report or (lambda _report: None), on_exit, reading)
        self._by_pid[child.pid] = child
        if reading is not None:
            os.set_blocking(reading, False)
            self._loop.watch(reading, selectors.EVENT_READ, lambda: self._read(child))
        return child

    def reap(self) -> None:
        """Bury whoever has died, and tell."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._by_pid.pop(pid, None)
            if child is not None:
                self._read(child)
                self._stop_reading(child)
                child.signal_group(signal.SIGKILL)  # what it may have left behind
                child.on_exit(os.waitstatus_to_exitcode(status))

    def kill_all(self) -> None:
        for child in list(self._by_pid.values()):
            child.signal_group(signal.SIGKILL)

    def _read(self, child: Child) -> None:
        while child.reports_fd is not None:
            try:
                data = os.read(child.reports_fd, 65536)
            except BlockingIOError:
                break
            if not data:
                self._stop_reading(child)
                break
            child.unread += data
        *lines, rest = bytes(child.unread).split(b"\n")
        child.unread[:] = rest[-MAX_LINE_BYTES:]
        for line in lines:
            self._report(child, line)

    def _report(self, child: Child, line: bytes) -> None:
        try:
            report = json.loads(line)
        except ValueError:
            report = None
        if isinstance(report, dict) and isinstance(report.get("event"), str):
            child.on_report(report)
        else:
            self._journal.warning("report_not_understood", child=child.role, line=line[:200])

    def _stop_reading(self, child: Child) -> None:
        if child.reports_fd is not None:
            self._loop.unwatch(child.reports_fd)
            os.close(child.reports_fd)
            child.reports_fd = None


def describe_exit(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode >= 0:
        return f"exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"
