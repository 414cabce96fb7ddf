"""The engines: which run, which one takes new requests, and what happens when one dies."""

from __future__ import annotations

import signal
from typing import Protocol

from service.domain.model import Mode
from service.ipc.status import WAKING, EngineState
from service.supervisor.children import STATUS_FD, Children, Report, describe_exit
from service.supervisor.engine import (
    MAX_LOAD_CRASHES,
    Engine,
    Seat,
    why_give_up,
    why_hung,
)
from service.supervisor.journal import Journal
from service.supervisor.loop import Loop
from service.supervisor.plan import Model, Plan
from service.supervisor.runtime import RuntimeDir

LOOK_SECONDS = 0.5
SECONDS_TO_ABORT = 2.0
NUM_CRASHES_TOLD = 16
# A guest that nobody has asked for so long makes room, whatever the setting for the others.
GUEST_IDLE_SECONDS = 600.0


class Owner(Protocol):
    """Whoever answers for the fleet."""

    @property
    def journal(self) -> Journal: ...

    def engines_changed(self) -> None:
        """Something that the status tells has changed."""
        ...

    def engine_ready(self, seat: Seat) -> None: ...

    def model_failed(self, seat: Seat, reason: str, *, crashed: bool) -> None:
        """The model never served, and will not; its seat is empty. `reason` is a sentence."""
        ...


class Fleet:
    """Starts engines and restarts the ones that crash, until told to drain."""

    def __init__(
        self, plan: Plan, runtime: RuntimeDir, loop: Loop, children: Children, owner: Owner
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._loop = loop
        self._children = children
        self._owner = owner
        self.journal = owner.journal
        self.wanted = plan.wanted
        self.crashed: tuple[int, ...] = ()
        self._last_id = 0
        self._draining = False
        self._stopping: set[int] = set()
        self.seats: list[Seat] = []
        self.num_restarts = 0
        loop.call_in(LOOK_SECONDS, self._look)

    @property
    def current(self) -> Seat | None:
        """The seat whose engine takes new chats."""
        return self.current_of(Mode.CHAT)

    def current_of(self, mode: Mode) -> Seat | None:
        """The seat whose engine takes new requests of this mode: the wanted model's where it is
        ready."""
        ready = [
            seat
            for seat in self.seats_of(mode)
            if seat.is_ready and not (seat.retired or seat.guest)
        ]
        return max(ready, key=lambda seat: seat.model == self.wanted, default=None)

    def seats_of(self, mode: Mode) -> list[Seat]:
        """The seats of this mode that are not on trial."""
        return [seat for seat in self.seats if seat.model.mode is mode and not seat.on_trial]

    def of_everybody(self, mode: Mode) -> Seat | None:
        """The seat that serves this mode, whether or not its engine is there just now."""
        resting = [seat for seat in self.seats_of(mode) if seat.asleep and not seat.retired]
        return self.current_of(mode) or (resting[0] if resting else None)

    @property
    def num_running(self) -> int:
        return sum(seat.engine is not None for seat in self.seats)

    def start(self, model: Model, *, on_trial: bool = False) -> Seat:
        """Give `model`, which has a path, a seat and an engine."""
        seat = Seat(model, on_trial=on_trial)
        self.seats.append(seat)
        self._start_engine(seat)
        return seat

    def appoint(self, seat: Seat) -> None:
        """The seat's model has proved itself, and is the wanted one from now on."""
        seat.on_trial = False
        seat.has_served = True
        if seat.model.mode is Mode.CHAT:
            self.wanted = seat.model

    def admit(self, seat: Seat) -> None:
        """The seat's model has proved itself, for those who ask for it."""
        seat.on_trial = False
        seat.has_served = seat.guest = True

    def wake(self) -> None:
        """Bring back the model that is asleep, if one is."""
        for seat in self.seats_of(Mode.CHAT):
            if seat.asleep and not self._draining:
                if seat.engine is None:
                    self._rouse(seat)
                seat.wanted_back = seat.asleep

    def retire(self, seat: Seat, patience_seconds: float = 0.0) -> None:
        """Let the seat's engine finish what it has, then go; by the end of the usual drain, which
        begins after `patience_seconds`."""
        seat.retired = True
        seat.restart_at = None
        if seat.engine is None:
            self.seats.remove(seat)
        elif patience_seconds and not self._draining:
            self._drain_patiently(seat.engine, patience_seconds)
        else:
            self._drain(seat.engine)
        self._owner.engines_changed()

    def dismiss(self, seat: Seat) -> None:
        """End the seat's engine now."""
        seat.retired = True
        seat.restart_at = None
        if seat.engine is not None:
            seat.engine.child.signal_group(signal.SIGKILL)
        elif seat in self.seats:
            self.seats.remove(seat)

    def drain(self) -> None:
        """Let all engines finish what they have; start none any more."""
        self._draining = True
        for seat in list(self.seats):
            self.retire(seat)

    def kill(self) -> None:
        """End all engines now."""
        self._draining = True
        for seat in list(self.seats):
            seat.restart_at = None
            if seat.engine is not None:
                seat.engine.child.signal_group(signal.SIGKILL)

    def _start_engine(self, seat: Seat, activity: str = "") -> None:
        self._last_id += 1
        engine_id = self._last_id
        socket_path = str(self._runtime.engine_socket(engine_id))
        command = [
            *self._plan.commands.engine,
            *("--id", str(engine_id)),
            *("--model-name", seat.model.name),
            *("--model-path", str(seat.model.path)),
            *("--mode", seat.model.mode),
            *(word for adapter in seat.model.adapters for word in ("--adapter", adapter)),
            *("--socket", socket_path),
            *("--status-fd", STATUS_FD),
        ]
        now = self._loop.now()
        try:
            child = self._children.spawn(
                f"engine-{engine_id}",
                command,
                on_exit=lambda returncode: self._bury(seat, returncode),
                on_report=lambda report: self._hear(seat, report),
            )
        except OSError as error:  # no memory or process left for one more, which may pass
            self.journal.error("engine_not_started", id=engine_id, reason=str(error))
            seat.restart_at = now + seat.backoff.pause_after(0.0)
            self._loop.call_in(seat.restart_at - now, lambda: self._restart(seat))
            return
        seat.restart_at = None
        seat.last_id = engine_id
        seat.engine = Engine(engine_id, socket_path, child, started=now, last_heard=now)
        seat.engine.activity = activity
        self.journal.debug("engine_started", id=engine_id, model=seat.model.name, pid=child.pid)
        self._owner.engines_changed()

    def _hear(self, seat: Seat, report: Report) -> None:
        engine = seat.engine
        if engine is None:
            return
        engine.last_heard = self._loop.now()
        match report["event"]:
            case "progress":
                engine.progress = min(max(_number(report.get("value")), 0.0), 1.0)
                self._owner.engines_changed()
            case "calibrating":
                engine.activity = "calibrating"
                self._owner.engines_changed()
            case "ready" if engine.state is EngineState.LOADING:
                engine.activity = ""
                engine.notice, engine.degraded = _text(report, "notice"), _text(report, "degraded")
                self._welcome(seat, engine, _number(report.get("load_seconds")))
            case "failed":
                engine.failure = str(report.get("reason") or "") or None
            case "heartbeat":
                engine.step_seconds = _number(report.get("step_seconds"))
                steps = _number(report.get("steps"))
                if steps != engine.num_steps or report.get("running") or report.get("waiting"):
                    engine.num_steps, engine.busy_at = steps, self._loop.now()

    def _welcome(self, seat: Seat, engine: Engine, load_seconds: float) -> None:
        now = self._loop.now()
        engine.state, engine.ready_at, engine.busy_at = EngineState.READY, now, now
        seat.has_served = not seat.on_trial
        # What matters to whoever waits is the whole start, imports included.
        seat.load_seconds = now - engine.started
        self.journal.debug(
            "engine_ready",
            id=engine.id,
            model=seat.model.name,
            load_seconds=load_seconds,
            start_seconds=round(seat.load_seconds, 3),
        )
        self._owner.engine_ready(seat)
        self._owner.engines_changed()

    def _bury(self, seat: Seat, returncode: int) -> None:
        engine = seat.engine
        if engine is None:
            return
        self._runtime.forget_engine(engine.id, engine.child.pid)
        self._stopping.discard(engine.id)
        seat.engine = None
        if engine.ready_at is not None and returncode != 0:
            self.crashed = (*self.crashed, engine.id)[-NUM_CRASHES_TOLD:]
        if seat.retired or self._draining:
            self.journal.debug("engine_stopped", id=engine.id, returncode=returncode)
            self.seats.remove(seat)
            self._owner.engines_changed()
            return
        if seat.asleep:
            if seat.wanted_back:
                self._rouse(seat)
            self._owner.engines_changed()
            return
        if not seat.has_served:
            seat.num_load_crashes += 1
        reason = why_give_up(seat, engine, returncode)
        if reason is not None:
            self.seats.remove(seat)
            self._owner.model_failed(seat, reason, crashed=returncode != 2)
            self._owner.engines_changed()
            return
        self._restart_later(seat, engine, describe_exit(returncode))

    def _restart_later(self, seat: Seat, engine: Engine, how: str) -> None:
        now = self._loop.now()
        pause = seat.backoff.pause_after(engine.up_seconds(now))
        self.num_restarts += 1
        seat.restart_at = now + pause
        self.journal.error(
            "engine_crashed",
            f"The engine of {seat.model.name} died ({engine.failure or how}); "
            f"a new one starts in {pause:g} s.",
            id=engine.id,
            model=seat.model.name,
            how=how,
            reason=engine.failure,
            restart_in_seconds=pause,
        )
        self._loop.call_in(pause, lambda: self._restart(seat))
        self._owner.engines_changed()

    def _restart(self, seat: Seat) -> None:
        if seat in self.seats and seat.restart_at is not None and not self._draining:
            self._start_engine(seat)

    def _drain(self, engine: Engine) -> None:
        # A second SIGTERM would mean "exit now".
        if engine.state is not EngineState.DRAINING or engine.is_patient:
            engine.state = EngineState.DRAINING
            engine.is_patient = False
            engine.child.signal(signal.SIGTERM)

    def _drain_patiently(self, engine: Engine, seconds: float) -> None:
        if engine.state is EngineState.LOADING:  # it has nothing to finish
            self._drain(engine)
        elif engine.state is not EngineState.DRAINING:
            engine.state, engine.is_patient = EngineState.DRAINING, True
            engine.child.signal(signal.SIGUSR1)
            self._loop.call_in(seconds, lambda: self._lose_patience(engine))

    def _lose_patience(self, engine: Engine) -> None:
        if any(seat.engine is engine for seat in self.seats):
            self._drain(engine)

    def _look(self) -> None:
        """Replace engines that hang, or load for too long."""
        now = self._loop.now()
        for seat in list(self.seats):
            engine = seat.engine
            if engine is None or engine.id in self._stopping:
                continue
            self._rest_if_idle(seat, engine, now)
            reason = why_hung(engine, now, self._plan.stall_seconds)
            limit = self._plan.load_timeout_seconds
            if engine.state is EngineState.LOADING and now - engine.started > limit:
                reason = f"it has loaded for {limit:g} s, which is all that it may take"
                seat.num_load_crashes = MAX_LOAD_CRASHES  # it would only take as long again
            if reason is not None:
                self._abort(seat.model, engine, reason)
        self._loop.call_in(LOOK_SECONDS, self._look)

    def _rest_if_idle(self, seat: Seat, engine: Engine, now: float) -> None:
        """Give memory back that nobody has needed for long."""
        limit = self._plan.unload_after_seconds or (GUEST_IDLE_SECONDS if seat.guest else 0.0)
        usual = engine.state is EngineState.READY and not (seat.retired or seat.on_trial)
        if not usual or seat.model.mode is not Mode.CHAT or not limit:
            return
        if now - engine.busy_at < limit:
            return
        self.journal.info(
            "model_unloaded",
            f"{seat.model.name} has left memory after {limit:g} s without a request.",
            model=seat.model.name,
            idle_seconds=round(now - engine.busy_at, 1),
        )
        if seat.guest:
            self.retire(seat)
            return
        seat.asleep = True
        self._drain(engine)
        self._owner.engines_changed()

    def _rouse(self, seat: Seat) -> None:
        """Start an engine for a model that was asleep."""
        seat.asleep = seat.wanted_back = False
        self.journal.info(
            "model_wanted_back", f"{seat.model.name} is asked for again.", model=seat.model.name
        )
        self._start_engine(seat, WAKING)

    def _abort(self, model: Model, engine: Engine, reason: str) -> None:
        """SIGABRT, so that it can say where it hangs; then SIGKILL."""
        self._stopping.add(engine.id)
        engine.failure = reason
        engine.state = EngineState.RESTARTING
        self.journal.error(
            "engine_stalled",
            f"The engine of {model.name} hangs ({reason}); it is replaced.",
            id=engine.id,
            model=model.name,
            reason=reason,
        )
        engine.child.signal(signal.SIGABRT)
        self._loop.call_in(SECONDS_TO_ABORT, lambda: self._kill_if_there(engine))
        self._owner.engines_changed()

    def _kill_if_there(self, engine: Engine) -> None:
        if any(seat.engine is engine for seat in self.seats):
            engine.child.signal_group(signal.SIGKILL)


def _text(report: Report, name: str) -> str | None:
    return str(report[name]) if report.get(name) else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
