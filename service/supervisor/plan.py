"""What to run, as the command line decided it: one JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain.model import Mode


@dataclass(frozen=True, slots=True)
class Model:
    """A model to serve. `path` None: it has to be fetched first, as `source` (a name, or
    REPO:FILE). `adapters` are
    LoRA files, as `PATH=SCALE`."""

    name: str
    path: Path | None = None
    mode: Mode = Mode.CHAT
    source: str = ""
    adapters: tuple[str, ...] = ()

    def is_same(self, other: Model) -> bool:
        """Whether both mean one file, with the same adapters, under one name."""
        mine = (self.name, self.path, self.mode, self.adapters)
        return mine == (other.name, other.path, other.mode, other.adapters)


@dataclass(frozen=True, slots=True)
class Commands:
    """The programs of the children, as argument lists; the supervisor appends options.

    `download` None: nothing may be fetched; else what to fetch follows it. `weigh` says whether a
    model fits into memory, and `trial` has an engine answer golden prompts; None: taken on trust.
    """

    engine: tuple[str, ...]
    http: tuple[str, ...]
    download: tuple[str, ...] | None = None
    weigh: tuple[str, ...] | None = None
    trial: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the supervisor needs to know. Durations are seconds.

    `wanted` answers chats; `companions` are models of other modes, each with an engine of its own
    beside it. `notice` is one sentence about a wanted model that cannot be had, for a stand-in to
    go with.
    A model that nobody has asked anything for `unload_after_seconds` leaves memory; 0: none does.
    What the service was last told to serve is kept in `choice_file`, with what was `configured`.
    `is_open` says that others can connect and nobody is asked for an access token; `readable`
    that a person reads the log.
    """

    version: str
    wanted: Model
    commands: Commands
    stand_in: Model | None = None
    companions: tuple[Model, ...] = ()
    notice: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    unix_socket: Path | None = None
    runtime_dir: Path | None = None
    drain_seconds: float = 30.0
    stall_seconds: float = 60.0
    load_timeout_seconds: float = 900.0
    switch_grace_seconds: float = 600.0
    unload_after_seconds: float = 0.0
    choice_file: Path | None = None
    configured: str = ""
    log_level: str = "info"
    is_open: bool = False
    readable: bool = False

    @property
    def address(self) -> str:
        """Where people find the service."""
        if self.unix_socket is not None:
            return f"unix:{self.unix_socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def from_json(text: str) -> Plan:
    """The plan in `text`. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    facts: dict[str, Any] = json.loads(text)
    commands = facts.pop("commands")

    def command(name: str) -> tuple[str, ...] | None:
        words = commands.get(name)
        return tuple(words) if words else None

    return Plan(
        wanted=to_model(facts.pop("wanted")),
        stand_in=to_model(facts.pop("stand_in")) if facts.get("stand_in") else None,
        companions=tuple(to_model(model) for model in facts.pop("companions", ())),
        unix_socket=_to_path(facts.pop("unix_socket", None)),
        runtime_dir=_to_path(facts.pop("runtime_dir", None)),
        choice_file=_to_path(facts.pop("choice_file", None)),
        commands=Commands(
            engine=tuple(commands["engine"]),
            http=tuple(commands["http"]),
            download=command("download"),
            weigh=command("weigh"),
            trial=command("trial"),
        ),
        **{name: value for name, value in facts.items() if name != "stand_in"},
    )


def to_model(facts: dict[str, Any]) -> Model:
    """Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
    return Model(
        name=str(facts["name"]),
        path=_to_path(facts.get("path")),
        mode=Mode(facts.get("mode", Mode.CHAT)),
        source=str(facts.get("source") or facts["name"]),
        adapters=tuple(str(adapter) for adapter in facts.get("adapters") or ()),
    )


def _to_path(text: str | None) -> Path | None:
    return Path(text) if text else None
