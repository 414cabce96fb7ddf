"""The download of the wanted model, in a process of its own, tried again while that can help."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from service.ipc.status import DownloadStatus
from service.supervisor.children import STATUS_FD, Child, Children, Report, describe_exit
from service.supervisor.engine import Backoff
from service.supervisor.loop import Loop, Timer
from service.supervisor.plan import Model

FIRST_RETRY_SECONDS = 15.0
LONGEST_RETRY_SECONDS = 1800.0


class Owner(Protocol):
    """Whoever wants the model."""

    def fetch_progressed(self) -> None: ...

    def fetched(self, model: Model) -> None:
        """The file is there: `model` has its path."""
        ...

    def fetch_failed(self, reason: str, retry_seconds: float | None) -> None:
        """`reason` is a sentence; None: trying again cannot help."""
        ...


class Fetch:
    """Fetches one model. Bytes that have arrived are kept from attempt to attempt."""

    def __init__(
        self,
        model: Model,
        command: tuple[str, ...],
        loop: Loop,
        children: Children,
        owner: Owner,
    ) -> None:
        self._model = model
        self._command = (*command, model.source, "--status-fd", STATUS_FD)
        self._loop = loop
        self._children = children
        self._owner = owner
        self._backoff = Backoff(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        self._child: Child | None = None
        self._retry: Timer | None = None
        self._started = 0.0
        self._outcome: Report | None = None
        self._cancelled = False
        self._done = self._total = 0
        self._finished = False

    @property
    def status(self) -> DownloadStatus | None:
        """How far it is; None once it is over."""
        if self._finished or self._cancelled:
            return None
        return DownloadStatus(self._model.name, self._done, self._total)

    def start(self) -> None:
        self._outcome = None
        self._started = self._loop.now()
        try:
            self._child = self._children.spawn(
                "download", self._command, on_exit=self._end, on_report=self._hear
            )
        except OSError as error:  # no memory or process left for one more, which may pass
            self._try_later(f"The download of {self._model.name} cannot be started ({error}).")

    def cancel(self) -> None:
        """Stop, for good; what has arrived stays for the next start."""
        self._cancelled = True
        if self._retry is not None:
            self._retry.cancel()
        if self._child is not None:
            self._child.signal_group(signal.SIGKILL)

    def _hear(self, report: Report) -> None:
        if report["event"] == "progress":
            self._done = int(report.get("done") or 0)
            self._total = int(report.get("total") or 0)
            self._owner.fetch_progressed()
        else:
            self._outcome = report

    def _end(self, returncode: int) -> None:
        self._child = None
        if self._cancelled:
            return
        outcome = self._outcome or {}
        if outcome.get("event") == "done":
            self._finished = True
            self._owner.fetched(replace(self._model, path=Path(str(outcome["path"]))))
            return
        reason = str(outcome.get("reason") or "") or (
            f"The download of {self._model.name} ended early ({describe_exit(returncode)})."
        )
        if outcome and not outcome.get("retryable"):
            self._finished = True
            self._owner.fetch_failed(reason, None)
            return
        self._try_later(reason)

    def _try_later(self, reason: str) -> None:
        pause = self._backoff.pause_after(self._loop.now() - self._started)
        self._retry = self._loop.call_in(pause, self.start)
        self._owner.fetch_failed(reason, pause)
