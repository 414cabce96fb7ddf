"""What the supervisor tells the workers: one JSON object per line over a unix socket.

The supervisor listens; each worker connects, gets the present status at once and every change
after it. `service.ipc.command` has what can be said in the other direction. Standard library only,
because the supervisor is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from service.domain.model import Mode

WAKING = "waking"


class Phase(StrEnum):
    """Of the whole service. `DRAINING`: finish what runs, refuse what is new."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class EngineState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    RESTARTING = "restarting"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine process. `progress` of loading runs from 0 to 1; `socket` is its path.

    `ASLEEP`: it has left memory for lack of requests, and the next one brings it back.
    `activity` is `calibrating` while that goes on, and `waking` while one that was asleep loads;
    `notice` says what memory did not allow,
    `degraded` what was given up after the engine had died of more, each in one sentence.
    Of the engines of one mode at most one `is_current`: the one that takes new requests. One that
    `is_guest` takes those of the callers who have chosen its model for themselves.
    """

    id: int
    model: str
    socket: str
    state: EngineState
    progress: float = 0.0
    mode: Mode = Mode.CHAT
    is_current: bool = False
    activity: str = ""
    notice: str | None = None
    degraded: str | None = None
    is_guest: bool = False


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """A model on its way to this machine, in bytes; `num_bytes_total` 0 while unknown."""

    model: str
    num_bytes_done: int = 0
    num_bytes_total: int = 0


class SwitchPhase(StrEnum):
    """How far a switch is; the last two are its ends.

    `DRAINING`: there is no memory for both models, so the present one finishes first. `TRYING`:
    the new one answers its golden prompts.
    """

    FETCHING = "fetching"
    WEIGHING = "weighing"
    DRAINING = "draining"
    LOADING = "loading"
    TRYING = "trying"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SwitchStatus:
    """The latest change of model that was asked for; `id` counts them.

    `model` shall take over from `previous`. `progress` runs from 0 to 1 within fetching and
    loading. `reason` says why it failed, in a sentence.
    """

    id: int
    model: str
    previous: str
    phase: SwitchPhase
    progress: float = 0.0
    reason: str | None = None
    mode: Mode = Mode.CHAT

    @property
    def is_over(self) -> bool:
        return self.phase in (SwitchPhase.DONE, SwitchPhase.FAILED)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The supervisor's view. `current` is the id of the engine that takes new chats.

    `wanted_model` is the configured one; where it is not the current engine's, `stand_in_model`
    is serving, and `notice` says why in one sentence. Both names mean the current engine, so that
    a client which chose one of them keeps working after the switch. `configured_model` is what the
    settings name: it means the current engine, too, also after an operator's switch, which lasts
    until the next start. `crashed` are the ids of the
    latest engines that died while they served.
    """

    phase: Phase = Phase.STARTING
    wanted_model: str = ""
    current: int | None = None
    engines: tuple[EngineStatus, ...] = ()
    download: DownloadStatus | None = None
    notice: str | None = None
    num_engine_restarts: int = 0
    retry_after_seconds: float = 1.0
    drain_deadline_unix: float | None = None
    stand_in_model: str | None = None
    degraded: str | None = None
    switch: SwitchStatus | None = None
    crashed: tuple[int, ...] = ()
    configured_model: str = ""

    @property
    def names(self) -> frozenset[str]:
        """What the current engine is called beside its own name."""
        named = (self.wanted_model, self.stand_in_model, self.configured_model)
        return frozenset(name for name in named if name)

    @property
    def sleeper(self) -> EngineStatus | None:
        """The engine for chats that is asleep, or on its way back."""
        return next(
            (
                engine
                for engine in self.engines
                if engine.mode is Mode.CHAT
                and (engine.state is EngineState.ASLEEP or engine.activity == WAKING)
            ),
            None,
        )

    @property
    def current_engine(self) -> EngineStatus | None:
        return next((e for e in self.engines if e.id == self.current), None)

    def current_of(self, mode: Mode) -> int | None:
        """The id of the engine that takes new requests of this mode."""
        if mode is Mode.CHAT:
            return self.current
        return next((e.id for e in self.engines if e.mode is mode and e.is_current), None)


def to_line(status: ServiceStatus) -> bytes:
    """One line, with its newline."""
    return json.dumps(asdict(status), separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> ServiceStatus:
    """The status in one line. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    facts = json.loads(line)
    facts["phase"] = Phase(facts["phase"])
    facts["engines"] = tuple(
        EngineStatus(
            **{**engine, "state": EngineState(engine["state"]), "mode": Mode(engine["mode"])}
        )
        for engine in facts["engines"]
    )
    if facts["download"] is not None:
        facts["download"] = DownloadStatus(**facts["download"])
    if facts["switch"] is not None:
        phase, mode = SwitchPhase(facts["switch"]["phase"]), Mode(facts["switch"]["mode"])
        facts["switch"] = SwitchStatus(**{**facts["switch"], "phase": phase, "mode": mode})
    facts["crashed"] = tuple(facts["crashed"])
    return ServiceStatus(**facts)
