"""Telling: the workers over the board, systemd, and whoever reads the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from service.domain.amounts import amount
from service.domain.model import Mode
from service.ipc.status import (
    DownloadStatus,
    EngineState,
    EngineStatus,
    Phase,
    ServiceStatus,
    SwitchStatus,
)
from service.supervisor.board import Board
from service.supervisor.engine import Seat, retry_after_seconds, why_hung
from service.supervisor.fleet import Fleet
from service.supervisor.journal import Journal
from service.supervisor.loop import Loop
from service.supervisor.notify import EXTENSION_SECONDS, Systemd
from service.supervisor.plan import Plan
from service.supervisor.runtime import RuntimeDir

# Progress is told at most this often; everything else at once.
PROGRESS_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Ears:
    """Where the herald tells: a socket in `runtime`, and systemd. `on_command` is what to do with
    a line that comes back over the socket; its result is the reply."""

    runtime: RuntimeDir
    systemd: Systemd
    on_command: Callable[[bytes], bytes]


class Herald:
    """Puts the status together from what the fleet and the download are, and spreads it."""

    def __init__(self, plan: Plan, loop: Loop, fleet: Fleet, ears: Ears) -> None:
        self._plan = plan
        self._loop = loop
        self._fleet = fleet
        self._systemd = ears.systemd
        self._journal: Journal = fleet.journal
        socket = ears.runtime.status_socket
        self._board = Board(loop, socket, self._tell_if_ready, ears.on_command)
        self.stand_in_model = plan.stand_in.name if plan.stand_in is not None else None
        self._status = ServiceStatus(
            wanted_model=plan.wanted.name, stand_in_model=self.stand_in_model
        )
        self._shown: object = None
        self._progress_due = False
        self._told_tenths = 0
        self._told_model: str | None = None
        self._started = loop.now()
        self.trouble = plan.notice
        self.download: DownloadStatus | None = None
        self.switch: SwitchStatus | None = None
        self._look_after_systemd()

    def publish(self) -> None:
        """Tell what has changed; mere progress a little later."""
        shape = (
            [
                (s.model.name, s.last_id, s.on_trial, s.asleep, s.engine and s.engine.state)
                for s in self._fleet.seats
            ],
            self._status.phase,
            self.trouble,
            self.download is None,
            self.switch and replace(self.switch, progress=0.0),
        )
        if shape != self._shown:
            self._shown = shape
            self._show()
        elif not self._progress_due:
            self._progress_due = True
            self._loop.call_in(PROGRESS_SECONDS, self._show_progress)

    def drain(self, deadline_unix: float) -> None:
        """Say that nothing new is taken any more."""
        self._systemd.stopping("Finishing running answers")
        self._status = replace(
            self._status, phase=Phase.DRAINING, drain_deadline_unix=deadline_unix
        )
        self.publish()

    def close(self) -> None:
        self._board.close()

    def _show_progress(self) -> None:
        self._progress_due = False
        self._show()
        if self._told_model is None:
            self._systemd.status(self._progress_sentence())
        if self.download is not None and self.download.num_bytes_total:
            tenths = 10 * self.download.num_bytes_done // self.download.num_bytes_total
            if tenths > self._told_tenths:
                self._told_tenths = tenths
                self._journal.info(
                    "download_progressed",
                    self._progress_sentence(),
                    model=self.download.model,
                    done=self.download.num_bytes_done,
                    total=self.download.num_bytes_total,
                )

    def _show(self) -> None:
        current = self._fleet.current
        phase = self._status.phase
        if phase is Phase.STARTING and current is not None:
            phase = Phase.SERVING
        wanted = self._fleet.wanted
        plan = replace(self._plan, wanted=wanted)
        engine = current.engine if current is not None else None
        degraded = engine.degraded if engine is not None else None
        notice = (
            self.trouble
            or usual_notice(plan, self._fleet.seats_of(Mode.CHAT), self.download)
            or degraded
            or (engine.notice if engine is not None else None)
        )
        self._status = replace(
            self._status,
            phase=phase,
            wanted_model=wanted.name,
            configured_model=self._plan.wanted.name,
            current=current.last_id if current is not None else None,
            engines=self._engines(),
            download=self.download,
            notice=notice,
            degraded=degraded,
            num_engine_restarts=self._fleet.num_restarts,
            retry_after_seconds=retry_after_seconds(
                self._fleet.seats_of(Mode.CHAT), self._loop.now()
            ),
            stand_in_model=self.stand_in_model,
            switch=self.switch,
            crashed=self._fleet.crashed,
        )
        self._board.show(self._status)
        self._tell_if_ready()

    def _engines(self) -> tuple[EngineStatus, ...]:
        fleet = self._fleet
        told = (
            seat.status(is_current=seat is fleet.current_of(seat.model.mode))
            for seat in fleet.seats
        )
        return tuple(status for status in told if status is not None)

    def _tell_if_ready(self) -> None:
        """Say so once an engine is ready and a worker is there to ask it."""
        current = self._fleet.current
        if current is None or not self._board.num_readers or self._status.phase is Phase.DRAINING:
            return
        model = current.model.name
        if self._told_model is None:
            seconds = self._loop.now() - self._started
            self._systemd.ready(f"{model} answers on {self._plan.address}")
            self._journal.info(
                "service_ready",
                f"{model} answers on {self._plan.address} (after {seconds:.1f} s).",
                model=model,
                address=self._plan.address,
                seconds=round(seconds, 3),
            )
        elif model != self._told_model:
            self._systemd.status(f"{model} answers on {self._plan.address}")
            self._journal.info("model_switched", f"{model} answers from now on.", model=model)
        self._told_model = model

    def _progress_sentence(self) -> str:
        if self.download is not None:
            return download_sentence(self.download)
        loading = [s for s in self._status.engines if s.state is EngineState.LOADING]
        if loading and loading[-1].activity:
            return f"Calibrating {loading[-1].model}"
        if loading:
            return f"Loading {loading[-1].model}: {loading[-1].progress:.0%}"
        return self._status.notice or "Starting"

    def _look_after_systemd(self) -> None:
        """Signs of life, while every engine that should make progress does."""
        interval = min((self._systemd.watchdog_seconds or 30.0) / 3, EXTENSION_SECONDS / 3)
        now, limit = self._loop.now(), self._plan.stall_seconds
        engines = [s.engine for s in self._fleet.seats if s.engine is not None]
        if self._systemd.watchdog_seconds is not None and not any(
            why_hung(engine, now, limit) for engine in engines
        ):
            self._systemd.alive()
        if self._status.phase is Phase.STARTING:
            self._systemd.extend()
        if self._systemd.address is not None:
            self._loop.call_in(interval, self._look_after_systemd)


def usual_notice(plan: Plan, seats: list[Seat], download: DownloadStatus | None) -> str | None:
    """Why the wanted model does not answer although nothing is wrong; None when it does."""
    if any(seat.is_ready and seat.model.name == plan.wanted.name for seat in seats):
        return None
    if any(seat.asleep and seat.model.name == plan.wanted.name for seat in seats):
        return (
            f"{plan.wanted.name} has left memory for lack of requests; the next one brings it back."
        )
    stand_in = plan.stand_in
    helps = stand_in is not None and any(s.model.name == stand_in.name for s in seats)
    until = f"; {stand_in.name} answers until then" if stand_in is not None and helps else ""
    if download is not None:
        return f"{plan.wanted.name} is being fetched{until}."
    mine = [seat.engine for seat in seats if seat.engine and seat.model.name == plan.wanted.name]
    doing = "calibrated" if any(engine.activity for engine in mine) else "loaded"
    return f"{plan.wanted.name} is being {doing}{until}."


def download_sentence(download: DownloadStatus) -> str:
    """How far a download is, for people."""
    done, total = download.num_bytes_done, download.num_bytes_total
    if not total:
        return f"Fetching {download.model}: {amount(done)}"
    return f"Fetching {download.model}: {amount(done)} of {amount(total)} ({done / total:.0%})"
