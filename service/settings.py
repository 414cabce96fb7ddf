"""The one table of settings, and the only reader of the environment.

Every setting is `PARLEY_GROUP__NAME` in the environment. Each composition root (the command
line, the API application, the engine process) builds the table once and hands down its groups.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dotenv import load_dotenv
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from service.domain.errors import ConfigurationError
from service.older_names import OLDER_NAMES, to_value

PREFIX = "PARLEY_"

# With libgomp's own 300 000, a thread burns the time slice that the one it waits for needs: beside
# busy processes a step took 1.6 s instead of 0.2 s; on a quiet machine no difference was seen
# (two threads on two cores, a model of half a billion parameters).
_SPIN_COUNT = "10000"


class Group(BaseModel):
    """A narrow part of the table; unknown names are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ApiSettings(Group):
    """How HTTP is served."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on.")
    unix_socket: Path | None = Field(
        None, description="Listen on this unix socket instead, behind a proxy."
    )
    workers: int = Field(2, ge=1, le=64, description="Number of HTTP worker processes.")
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest request body that is read."
    )
    cors_origins: str = Field(
        "",
        description="Other sites whose pages may ask, as https://a.example https://b.example; "
        "* lets all. Such pages need an access token wherever others do.",
    )
    keepalive_comment_seconds: float = Field(
        10.0, gt=0, description="Silence on a stream after which a comment is sent."
    )


class ModelSettings(Group):
    """Which model is served."""

    name: str = Field(
        "qwen2.5-0.5b-instruct",
        description="A catalogue name, REPO:FILE on the model hub, or a path to a GGUF file.",
    )
    served_name: str | None = Field(
        None,
        pattern=r"^[\w.:/-]{1,200}$",
        description="What clients see the model called; unset means its own name.",
    )
    stand_in: str | None = Field(
        None, description="A model to serve while the configured one is being fetched."
    )
    offline: bool = Field(False, description="Never contact the model hub.")
    switch_grace_seconds: float = Field(
        600,
        ge=0,
        description="How long answers of a model may go on after another one has taken over.",
    )


class EngineSettings(Group):
    """How the model runs."""

    slots: int = Field(8, ge=1, le=256, description="Conversations that can generate at once.")
    context_length: int = Field(
        4096, ge=256, description="Tokens per conversation, bounded by what the model allows."
    )
    batch_tokens: int = Field(512, ge=32, le=65536, description="Most tokens read in one call.")
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Compute threads; 0: all usable cores, or one for a model under 64 MB.",
    )
    gpu_layers: int = Field(-1, ge=-1, description="Layers on the GPU; -1 takes all that fit.")
    gpu_split: Literal["none", "layer", "row"] = Field(
        "layer", description="How several GPUs share a model: one alone, by layers, or by rows."
    )
    main_gpu: int = Field(
        0, ge=0, description="The GPU for a model that is not shared, counted from 0."
    )
    speculation: bool = Field(
        True, description="Guess what comes next and check it at once, where that is quicker."
    )
    blas: Literal["auto", "on", "off"] = Field(
        "auto", description="OpenBLAS for long prompts: measured at start-up, or forced."
    )
    max_waiting: int = Field(64, ge=0, description="Requests that may wait for a slot.")
    max_prompt_bytes: int = Field(
        1024 * 1024, ge=1024, description="Longest prompt text that is tokenized."
    )
    inter_token_target_seconds: float = Field(
        0.25, gt=0, description="Gap between tokens that a prompt being read may cause."
    )
    parked_bytes: int | None = Field(
        None, ge=0, description="Memory for parked conversations; unset: a quarter of what is free."
    )
    archived_bytes: int = Field(
        2 * 1024**3, ge=0, description="Disk, in the state directory, for parked conversations."
    )
    load_timeout_seconds: float = Field(
        900, gt=0, description="A model that takes longer than this to load has failed."
    )
    stall_seconds: float = Field(
        60, gt=0, description="A decode step that takes longer than this is a hang."
    )


class VectorSettings(Group):
    """How a model runs that reads whole inputs at once."""

    model: str | None = Field(
        None, description="A catalogue name, REPO:FILE on the model hub, or a path; unset: none."
    )
    context_length: int = Field(
        2048,
        ge=16,
        le=65536,
        description="Tokens of the longest input, bounded by what the model allows.",
    )
    batch_tokens: int = Field(
        512, ge=16, le=65536, description="Inputs are read together up to so many tokens."
    )
    max_waiting: int = Field(64, ge=0, description="Requests that may wait for the model.")
    max_inputs: int = Field(2048, ge=1, description="Most inputs or documents in one request.")


class EmbedSettings(VectorSettings):
    """The model that turns texts into vectors."""

    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="How a text becomes one vector; auto: as the model says."
    )


class RerankSettings(VectorSettings):
    """The model that judges documents."""


class ChatSettings(Group):
    """What a chat is, where the client does not say."""

    system_prompt: str = Field(
        "You are a helpful assistant. Provide clear, concise, and accurate answers.",
        description="System prompt of the native routes.",
    )
    thinking: bool = Field(False, description="Let a reasoning model think unless told not to.")
    aliases: str = Field(
        "",
        description="Other names for the served model, with wildcards: `gpt-*, claude-*`.",
    )
    max_messages: int = Field(4096, ge=1, description="Most messages in one request.")
    max_choices: int = Field(
        8, ge=1, le=64, description="Most answers to one request (`n`) that a client may ask for."
    )
    max_tokens: int = Field(
        0, ge=0, description="Most tokens of any answer; 0: as many as the context holds."
    )
    max_exchanges: int = Field(
        50, ge=0, description="Most exchanges that the /api/v1 routes tell the model again."
    )


class StoreSettings(Group):
    """Where conversations are kept."""

    url: str | None = Field(
        None, description="SQLAlchemy URL; unset means parley.sqlite in the state directory."
    )
    keep_days: float = Field(
        0, ge=0, description="Conversations unused for longer are forgotten; 0 keeps all."
    )


class AuthSettings(Group):
    """Who is let in."""

    allow_anonymous: bool = Field(
        False,
        description="Answer everybody who can connect, from anywhere, as long as there is no "
        "access token.",
    )
    anonymous_requests_per_minute: int = Field(
        0, ge=0, description="Of each address, where no access token is needed; 0: no limit."
    )
    anonymous_tokens_per_minute: int = Field(
        0, ge=0, description="Of all who come without an access token together; 0: no limit."
    )
    anonymous_streams: int = Field(
        0, ge=0, description="Answers at once for all without an access token; 0: no limit."
    )


class LogSettings(Group):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: readable on a terminal, JSON elsewhere."
    )


def _default_state_dir() -> Path:
    """`$XDG_STATE_HOME/parley`, or what the platform uses instead."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "parley"
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "parley"


class Settings(BaseSettings):
    """All settings. Wrong values stop the start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    state_dir: Path = Field(
        default_factory=_default_state_dir, description="Models, conversations, caches."
    )
    runtime_dir: Path | None = Field(
        None, description="Sockets and metric files; unset means a fresh private directory."
    )
    drain_seconds: float = Field(
        30, ge=1, le=3600, description="How long running answers may go on after SIGTERM."
    )
    api: ApiSettings = Field(default_factory=ApiSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    embed: EmbedSettings = Field(default_factory=EmbedSettings)
    rerank: RerankSettings = Field(default_factory=RerankSettings)
    chat: ChatSettings = Field(default_factory=ChatSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    log: LogSettings = Field(default_factory=LogSettings)


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The table from `overrides` (nested, as on the command line), then the environment.

    What earlier services called a setting (`OLDER_NAMES`) is understood. Raises
    `ConfigurationError` naming the key, its value, and what would have been accepted, or the two
    variables that contradict each other.
    """
    given: dict[str, Any] = {
        group: dict(v) if isinstance(v, Mapping) else v for group, v in (overrides or {}).items()
    }
    sources: dict[tuple[str, str], str] = {}
    for variable, place in OLDER_NAMES.items():
        text = os.environ.get(variable)
        if text and place[1] not in (overrides or {}).get(place[0], {}):
            value = to_value(variable, text)
            _refuse_contradiction(variable, value, place, sources.get(place))
            sources[place] = variable
            given.setdefault(place[0], {})[place[1]] = value
    _refuse_unknown_variables()
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigurationError(_first_sentence(error, sources)) from error
    except SettingsError as error:
        # A whole group in one variable would have to be JSON; we publish only one name a value.
        raise ConfigurationError(f"A {PREFIX} variable is not accepted: {error}.") from error


def read_dotenv() -> None:
    """Take what `.env` in the working directory says, where the environment says nothing."""
    load_dotenv(Path(".env"), override=False)


def to_environment(settings: Settings, *, only_given: bool = False) -> dict[str, str]:
    """The variables that make a child process build the same table.

    Unset values are left out; `only_given` leaves out what is at its default because nobody set
    it, too. The result holds only `PARLEY_` names.
    """
    variables: dict[str, str] = {}
    table = settings.model_dump(mode="json", exclude_none=True, exclude_unset=only_given)
    for name, value in table.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                variables[f"{PREFIX}{name}__{key}".upper()] = _to_text(inner)
        else:
            variables[f"{PREFIX}{name}".upper()] = _to_text(value)
    return variables


def child_environment(settings: Settings, **extra: str) -> dict[str, str]:
    """The environment for a child: ours without `PARLEY_` and older names, then the table.

    The child can tell what the operator set from what is a default, as we can. Threads that wait
    for one another in the engine spin for a while; `GOMP_SPINCOUNT` has them sleep sooner than
    usual, unless the operator decided otherwise.
    """
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.upper().startswith(PREFIX) and k not in OLDER_NAMES
    }
    if "OMP_WAIT_POLICY" not in kept:
        kept.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    return {**kept, **to_environment(settings, only_given=True), **extra}


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _refuse_contradiction(
    variable: str, value: str, place: tuple[str, str], earlier: str | None
) -> None:
    """Raises `ConfigurationError` where another variable says something else."""
    current = f"{PREFIX}{place[0]}__{place[1]}".upper()
    for other in filter(None, (current, earlier)):
        text = os.environ.get(other)
        if text and (text if other == current else to_value(other, text)) != value:
            raise ConfigurationError(
                f"{variable}={os.environ[variable]} and {other}={text} contradict each other; "
                "set one."
            )


def _places() -> dict[str, tuple[str, str]]:
    """Each variable of a group's setting, and where it belongs."""
    return {
        f"{PREFIX}{group}__{name}".upper(): (group, name)
        for group, info in Settings.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group)
        for name in info.annotation.model_fields
    }


def _refuse_unknown_variables() -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | _places().keys()
    for variable in os.environ:
        upper = variable.upper()
        if upper.startswith(PREFIX) and "__" in upper and upper not in known:
            raise ConfigurationError(
                f"{variable} is not a setting; `parley config show` lists those there are."
            )


def _first_sentence(error: ValidationError, sources: Mapping[tuple[str, str], str]) -> str:
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"])
    key = (
        sources.get((place[0], place[-1]))
        or PREFIX + "__".join(str(part) for part in first["loc"]).upper()
    )
    return f"{key}={first['input']!r} is not accepted: {first['msg'][0].lower()}{first['msg'][1:]}."
