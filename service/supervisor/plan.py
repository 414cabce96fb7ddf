"""What to run, as the command line decided it: one JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Model:
    """A model to serve. `path` None: it has to be fetched first."""

    name: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Commands:
    """The programs of the children, as argument lists; the supervisor appends options.

    `download` None: nothing may be fetched.
    """

    engine: tuple[str, ...]
    http: tuple[str, ...]
    download: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the supervisor needs to know. Durations are seconds.

    `notice` is one sentence about a wanted model that cannot be had, for a stand-in to go with.
    `is_open` says that others can connect and nobody is asked for an access token; `readable`
    that a person reads the log.
    """

    version: str
    wanted: Model
    commands: Commands
    stand_in: Model | None = None
    notice: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    unix_socket: Path | None = None
    runtime_dir: Path | None = None
    drain_seconds: float = 30.0
    stall_seconds: float = 60.0
    load_timeout_seconds: float = 900.0
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
    download = commands.get("download")
    return Plan(
        wanted=_to_model(facts.pop("wanted")),
        stand_in=_to_model(facts.pop("stand_in")) if facts.get("stand_in") else None,
        unix_socket=_to_path(facts.pop("unix_socket", None)),
        runtime_dir=_to_path(facts.pop("runtime_dir", None)),
        commands=Commands(
            engine=tuple(commands["engine"]),
            http=tuple(commands["http"]),
            download=tuple(download) if download else None,
        ),
        **{name: value for name, value in facts.items() if name != "stand_in"},
    )


def _to_model(facts: dict[str, Any]) -> Model:
    return Model(name=facts["name"], path=_to_path(facts.get("path")))


def _to_path(text: str | None) -> Path | None:
    return Path(text) if text else None
