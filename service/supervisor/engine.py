"""One engine process as the supervisor sees it, and the judgements about it; no effects."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.ipc.status import EngineState, EngineStatus
from service.supervisor.children import Child, describe_exit
from service.supervisor.plan import Model

# A healthy engine speaks every second, whatever its model does.
MAX_SILENCE_SECONDS = 20.0
# A model that kills its process this often before it ever served will not serve.
MAX_LOAD_CRASHES = 3

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts: they double, until something has held for `steady_seconds`."""

    first_seconds: float = FIRST_PAUSE_SECONDS
    longest_seconds: float = LONGEST_PAUSE_SECONDS
    steady_seconds: float = STEADY_SECONDS
    _next_seconds: float | None = None

    def pause_after(self, up_seconds: float) -> float:
        """How long to wait now that an attempt has ended which held for `up_seconds`."""
        if self._next_seconds is None or up_seconds >= self.steady_seconds:
            self._next_seconds = self.first_seconds
        pause = self._next_seconds
        self._next_seconds = min(pause * 2, self.longest_seconds)
        return pause


@dataclass(eq=False, slots=True)
class Engine:
    """An engine process. Times are monotonic seconds.

    `is_patient`: it drains, and has not been told to be done by any time. `busy_at` is when it was
    last seen to have something to do.
    """

    id: int
    socket: str
    child: Child
    started: float
    state: EngineState = EngineState.LOADING
    progress: float = 0.0
    ready_at: float | None = None
    last_heard: float = 0.0
    step_seconds: float = 0.0
    failure: str | None = None
    activity: str = ""
    notice: str | None = None
    degraded: str | None = None
    is_patient: bool = False
    busy_at: float = 0.0
    num_steps: float = 0.0

    def up_seconds(self, now: float) -> float:
        return now - self.ready_at if self.ready_at is not None else 0.0


@dataclass(eq=False, slots=True)
class Seat:
    """A model that shall have an engine, and the engine that it has now.

    `load_seconds` is how long the last load took. `retired`: its engine may finish what it has.
    `on_trial`: it has to prove itself before it gets any request. `guest`: it serves those who have
    chosen it, beside the model that serves everybody. `asleep`: there is no engine until somebody
    asks something (`wanted_back`: somebody has, while the old engine was still leaving).
    """

    model: Model
    backoff: Backoff = field(default_factory=Backoff)
    engine: Engine | None = None
    has_served: bool = False
    num_load_crashes: int = 0
    load_seconds: float = 0.0
    restart_at: float | None = None
    last_id: int = 0
    retired: bool = False
    on_trial: bool = False
    guest: bool = False
    asleep: bool = False
    wanted_back: bool = False

    @property
    def is_ready(self) -> bool:
        return self.engine is not None and self.engine.state is EngineState.READY

    def status(self, *, is_current: bool = False) -> EngineStatus | None:
        """For the workers; None while there is nothing to say."""
        engine, model = self.engine, self.model
        if self.asleep:
            return EngineStatus(self.last_id, model.name, "", EngineState.ASLEEP, mode=model.mode)
        if engine is None and self.restart_at is None:
            return None
        if engine is None:
            restarting = EngineState.RESTARTING
            return EngineStatus(self.last_id, model.name, "", restarting, mode=model.mode)
        progress = 1.0 if engine.state is EngineState.READY else engine.progress
        return EngineStatus(
            engine.id,
            model.name,
            engine.socket,
            engine.state,
            progress,
            model.mode,
            is_current,
            engine.activity,
            engine.notice,
            engine.degraded,
            self.guest,
        )


def why_hung(engine: Engine, now: float, stall_seconds: float) -> str | None:
    """Why a ready engine has to be replaced; None while it makes progress."""
    if engine.ready_at is None:
        return None
    if engine.step_seconds > stall_seconds:
        return f"one step has taken {engine.step_seconds:.0f} s"
    silence = now - engine.last_heard
    if silence > min(stall_seconds, MAX_SILENCE_SECONDS):
        return f"it has said nothing for {silence:.0f} s"
    return None


def why_give_up(seat: Seat, engine: Engine, returncode: int) -> str | None:
    """A sentence why no other engine is started for a model whose engine has ended; None: start.

    A model that has served before is never given up: what has changed may change back.
    """
    if seat.has_served:
        return None
    path = seat.model.path
    if returncode == 2:
        return engine.failure or f"{path} cannot be loaded; the reason is in the log above."
    if seat.on_trial and engine.ready_at is not None:
        how = engine.failure or describe_exit(returncode)
        return f"The engine of {seat.model.name} died while the model was being tried ({how})."
    if seat.num_load_crashes < MAX_LOAD_CRASHES:
        return None
    how = engine.failure or f"the engine died {MAX_LOAD_CRASHES} times while loading it"
    return f"{path} cannot be loaded: {how} (last: {describe_exit(returncode)})."


def retry_after_seconds(seats: list[Seat], now: float) -> float:
    """When it can help to ask again, for a caller who finds no engine; at least 1."""
    waits = []
    for seat in seats:
        load = max(seat.load_seconds, 1.0)
        if seat.is_ready:
            waits.append(0.0)
        elif seat.engine is not None and seat.engine.state is EngineState.LOADING:
            waits.append(load - (now - seat.engine.started))
        elif seat.restart_at is not None:
            waits.append(seat.restart_at - now + load)
    return float(max(1, round(min(waits, default=5.0))))
