"""The one table of settings, and the only reader of the environment.

Every setting is `PARLEY_GROUP__NAME` in the environment. Each composition root (the command
line, the API application, the engine process) builds the table once and hands down its groups.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dotenv import load_dotenv
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from service.domain.errors import ConfigurationError
from service.older_names import OLDER_NAMES, to_value
from service.secret_files import CREDENTIALS, SUFFIX, files_of, read_secrets
from service.setting_groups import (
    ApiSettings,
    AuthSettings,
    ChatSettings,
    EmbedSettings,
    EngineSettings,
    Group,
    LogSettings,
    ModelSettings,
    PictureSettings,
    RerankSettings,
    StoreSettings,
    VectorSettings,
    is_secret,
)

__all__ = [
    "PREFIX",
    "ApiSettings",
    "AuthSettings",
    "ChatSettings",
    "EmbedSettings",
    "EngineSettings",
    "Group",
    "LogSettings",
    "ModelSettings",
    "PictureSettings",
    "RerankSettings",
    "Settings",
    "StoreSettings",
    "VectorSettings",
    "child_environment",
    "environment_with",
    "load_settings",
    "read_dotenv",
    "to_environment",
]

PREFIX = "PARLEY_"

# With libgomp's own 300 000, a thread burns the time slice that the one it waits for needs: beside
# busy processes a step took 1.6 s instead of 0.2 s; on a quiet machine no difference was seen
# (two threads on two cores, a model of half a billion parameters).
_SPIN_COUNT = "10000"
# OpenBLAS's own threads go on looking for work for 2^26 ticks of the processor, while llama.cpp's
# threads want the cores. With 2^14 a prompt of 131 tokens was read in 1.18 s instead of 1.42, one
# of 508 in 2.79 s instead of 3.09 (medians of five, the same two threads and model).
_BLAS_TIMEOUT = "14"


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
    pictures: PictureSettings = Field(default_factory=PictureSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @property
    def models_dir(self) -> Path:
        """Where the files of models are, absolute."""
        return (self.model.directory or self.state_dir / "models").absolute()

    @field_validator("state_dir", "runtime_dir", mode="before")
    @classmethod
    def _refuse_empty(cls, path: object) -> object:
        """Nothing would mean the directory that the service happens to be started in."""
        if path == "":
            raise ValueError("must be the path of a directory; leave the variable out for ours")
        return path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, with what lies in files as if it stood there. Raises
        `ConfigurationError`."""
        if isinstance(env_settings, EnvSettingsSource):
            files = {f"{variable}{SUFFIX}".lower() for variable in _secrets()}
            secrets = read_secrets(os.environ, _secrets())
            env_settings.env_vars = {
                **{name: text for name, text in env_settings.env_vars.items() if name not in files},
                **{variable.lower(): secret for variable, secret in secrets.items()},
            }
        return init_settings, env_settings


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


def environment_with(assumed: Mapping[str, str]) -> dict[str, str]:
    """The environment, `.env` and, where those say nothing of a setting under any of its names,
    the variables in `assumed`."""
    read_dotenv()
    places = {**OLDER_NAMES, **_places()}
    said = {places[name] for name in os.environ if name in places and os.environ[name]}
    unsaid = {name: text for name, text in assumed.items() if places[name] not in said}
    return {**os.environ, **unsaid}


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
    for one another in the engine spin for a while; `GOMP_SPINCOUNT` and `OPENBLAS_THREAD_TIMEOUT`
    have them sleep sooner than usual, unless the operator decided otherwise.
    """
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.upper().startswith(PREFIX) and k not in OLDER_NAMES
    }
    if "OMP_WAIT_POLICY" not in kept:
        kept.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    kept.setdefault("OPENBLAS_THREAD_TIMEOUT", _BLAS_TIMEOUT)
    return {**kept, **_with_files(to_environment(settings, only_given=True)), **extra}


def _with_files(variables: Mapping[str, str]) -> dict[str, str]:
    """A secret that lies in a file stays there, and out of every child's environment."""
    files = files_of(os.environ, _secrets())
    folder = os.environ.get(CREDENTIALS, "")
    named = {f"{v}{SUFFIX}": str(f) for v, f in files.items() if str(f.parent) != folder}
    return {**{v: text for v, text in variables.items() if v not in files}, **named}


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


def _secrets() -> list[str]:
    """The variables whose values nobody may see, and which may lie in files."""
    groups = {name: info.annotation for name, info in Settings.model_fields.items()}
    return [
        variable
        for variable, (group, name) in _places().items()
        if is_secret(groups[group].model_fields[name])  # type: ignore[union-attr]  # a Group
    ]


def _refuse_unknown_variables() -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | _places().keys()
    known |= {f"{variable}{SUFFIX}" for variable in _secrets()}
    for variable in os.environ:
        upper = variable.upper()
        if upper.startswith(PREFIX) and "__" in upper and upper not in known:
            near = get_close_matches(upper, known, n=1, cutoff=0.8)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise ConfigurationError(
                f"{variable} is not a setting; `parley config show` lists those there are.{meant}"
            )


def _first_sentence(error: ValidationError, sources: Mapping[tuple[str, str], str]) -> str:
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"])
    key = (
        sources.get((place[0], place[-1]))
        or PREFIX + "__".join(str(part) for part in first["loc"]).upper()
    )
    shown = "" if key in _secrets() else f"={first['input']!r}"
    return f"{key}{shown} is not accepted: {first['msg'][0].lower()}{first['msg'][1:]}."
