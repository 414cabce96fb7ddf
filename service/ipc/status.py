"""What the supervisor tells the workers: one JSON object per line over a unix socket.

The supervisor listens; each worker connects, gets the present status at once and every change
after it. Standard library only, because the supervisor is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One engine process. `progress` of loading runs from 0 to 1; `socket` is its path."""

    id: int
    model: str
    socket: str
    state: EngineState
    progress: float = 0.0


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """A model on its way to this machine, in bytes; `num_bytes_total` 0 while unknown."""

    model: str
    num_bytes_done: int = 0
    num_bytes_total: int = 0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The supervisor's view. `current` is the id of the engine that takes new requests.

    `wanted_model` is the configured one; where it is not the current engine's, `stand_in_model`
    is serving, and `notice` says why in one sentence. Both names mean the current engine, so that
    a client which chose one of them keeps working after the switch.
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

    @property
    def current_engine(self) -> EngineStatus | None:
        return next((e for e in self.engines if e.id == self.current), None)


def to_line(status: ServiceStatus) -> bytes:
    """One line, with its newline."""
    return json.dumps(asdict(status), separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> ServiceStatus:
    """The status in one line. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    facts = json.loads(line)
    facts["phase"] = Phase(facts["phase"])
    facts["engines"] = tuple(
        EngineStatus(**{**engine, "state": EngineState(engine["state"])})
        for engine in facts["engines"]
    )
    if facts["download"] is not None:
        facts["download"] = DownloadStatus(**facts["download"])
    return ServiceStatus(**facts)
