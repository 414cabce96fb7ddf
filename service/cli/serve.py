"""`parley serve`: checks everything that can be checked before a start, then turns into the
supervisor: same process, same pid."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from service import __version__
from service.auth.door import is_reachable_by_others
from service.cli.first_token import make_first_token
from service.domain.errors import ConfigurationError, ModelFileError, ModelNotFound
from service.domain.model import Mode
from service.ipc.choice import read_choice
from service.models.gguf import check_model_file
from service.models.registry import ModelSource, resolve
from service.settings import Settings, child_environment, load_settings
from service.store.access_tokens import any_access_token
from service.store.database import check_store, settle_answers

# What gunicorn's own script does. gunicorn puts the present directory in front of all packages
# before it reads its configuration, so that is imported before gunicorn can.
GUNICORN = """
import sys, service.gunicorn_conf
from gunicorn.app.wsgiapp import run
sys.exit(run())
""".strip()


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Port to listen on.  [default: 8000]",
)
@click.option(
    "--model",
    metavar="NAME|PATH",
    help="A catalogue name, REPO:FILE on the model hub, or a .gguf file.",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1, 64),
    help="HTTP worker processes.  [default: 2]",
)
@click.option(
    "--stand-in",
    metavar="NAME|PATH",
    help="A model on this machine that answers while the other one is being fetched.",
)
@click.option("--offline", is_flag=True, default=None, help="Never contact the model hub.")
@click.option(
    "--make-token",
    is_flag=True,
    help="Where others can connect and there is no access token yet: make one and print it.",
)
def serve(*, make_token: bool, **options: Any) -> None:
    """Serve until Ctrl-C or SIGTERM.

    \b
    Examples:
      parley serve --model pocket
      parley serve --model /models/mine.gguf --port 9000
      parley serve --model qwen2.5-1.5b-instruct --stand-in pocket

    Options win over PARLEY_ variables; `parley config show` lists those.
    """
    given: dict[str, dict[str, Any]] = {
        "api": {name: options[name] for name in ("host", "port", "workers")},
        "model": {
            "name": options["model"],
            **{name: options[name] for name in ("stand_in", "offline")},
        },
    }
    settings = load_settings(
        {
            group: {name: value for name, value in values.items() if value is not None}
            for group, values in given.items()
        }
    )
    plan = make_plan(settings, readable=is_readable(settings))
    check_store(settings)
    settle_answers(settings)
    plan["is_open"] = check_door(settings, make_token=make_token)
    become_supervisor(settings, plan)


def make_plan(settings: Settings, *, readable: bool) -> dict[str, Any]:
    """What the supervisor has to do (`service.supervisor.plan`), as JSON values.

    Raises `ModelNotFound`, `ModelFileError` or `ConfigurationError` for models that cannot be
    served.
    """
    models_dir = settings.models_dir
    chosen = chosen_source(settings)
    source = chosen or resolve(settings.model.name, models_dir)
    if settings.model.served_name is not None and chosen is None:
        source = replace(source, name=settings.model.served_name)
    wanted = _usable_path(source, models_dir)
    stand_in = _stand_in(settings, source, models_dir)
    notice = None
    if wanted is None and settings.model.offline:
        notice = _why_missing(source, models_dir)
        if stand_in is None:
            raise ConfigurationError(notice)
        notice = f"{notice} {stand_in['name']} answers instead."
    return {
        "version": __version__,
        "wanted": _to_model(source, wanted),
        "stand_in": stand_in,
        "companions": list(_companions(settings, models_dir)),
        "notice": notice,
        "host": settings.api.host,
        "port": settings.api.port,
        "unix_socket": _absolute(settings.api.unix_socket),
        "runtime_dir": _absolute(settings.runtime_dir),
        "drain_seconds": settings.drain_seconds,
        "stall_seconds": settings.engine.stall_seconds,
        "load_timeout_seconds": settings.engine.load_timeout_seconds,
        "switch_grace_seconds": settings.model.switch_grace_seconds,
        "unload_after_seconds": settings.model.unload_after_seconds,
        "choice_file": str(choice_file(settings)),
        "configured": settings.model.name,
        "log_level": settings.log.level,
        "readable": readable,
        "commands": child_commands(settings, draft_words(settings), source.name),
    }


def choice_file(settings: Settings) -> Path:
    """Where it is kept which model the service was switched to."""
    return settings.state_dir.absolute() / "model-choice.json"


def chosen_source(settings: Settings) -> ModelSource | None:
    """The model that the service was switched to before its last end; None where it was not, where
    the settings name another one since, or where it is not here any more."""
    choice = read_choice(choice_file(settings), settings.model.name)
    for wanted in (choice.name, choice.source, choice.path) if choice is not None else ():
        with suppress(ModelNotFound):
            source = resolve(wanted, settings.models_dir)
            if source.is_present(settings.models_dir):
                return source
    return None


def check_door(settings: Settings, *, make_token: bool = False) -> bool:
    """Whether anybody can come in from elsewhere. Raises `ConfigurationError` where nobody could.

    Nobody is let in there without an access token, so there has to be one; with `make_token` it is
    made here where there is none.
    """
    api = settings.api
    if not is_reachable_by_others(api.host, api.unix_socket) or any_access_token(settings):
        return False
    if settings.auth.allow_anonymous:
        return True
    if make_token:
        make_first_token(settings)
        return False
    place = f"unix:{api.unix_socket}" if api.unix_socket is not None else api.host
    default = Settings.model_fields["state_dir"].get_default(call_default_factory=True)
    state = "" if settings.state_dir == default else f"PARLEY_STATE_DIR={settings.state_dir} "
    raise ConfigurationError(
        f"{place} can be reached by others, and there is no access token yet; make one with "
        f"`{state}parley token create --name laptop`, or let everybody in with "
        "PARLEY_AUTH__ALLOW_ANONYMOUS=true."
    )


def draft_words(settings: Settings) -> list[str]:
    """The option that names the draft model's file, where there is one. Raises `ModelNotFound` or
    `ModelFileError` for one that isn't on this machine."""
    if settings.engine.draft_model is None:
        return []
    source = resolve(settings.engine.draft_model, settings.models_dir)
    path = _usable_path(source, settings.models_dir)
    if path is None:
        raise ModelFileError(
            f"PARLEY_ENGINE__DRAFT_MODEL: {source.name} is not on this machine; "
            f"fetch it with `parley model pull {source.wanted}`."
        )
    return ["--draft-model", str(path)]


def child_commands(
    settings: Settings, draft: Sequence[str] = (), wanted: str = ""
) -> dict[str, list[str] | None]:
    """The children's programs. `-P`: what lies in the present directory is not ours.

    `draft` are the options of a draft model that `wanted` must be able to use.
    """
    python = [sys.executable, "-P", "-m"]
    models_dir = str(settings.models_dir)
    return {
        "engine": [*python, "service.engine", *draft, *(("--draft-for", wanted) if draft else ())],
        "http": [
            *(sys.executable, "-P", "-c", GUNICORN),
            *("--config", "python:service.gunicorn_conf", "service.api.app:create_app()"),
        ],
        "download": (
            [*python, "service.models", "--models-dir", models_dir, "pull"]
            if not settings.model.offline
            else None
        ),
        "weigh": [*python, "service.engine.weigh", *draft],
        "trial": [*python, "service.chat.trial", "--models-dir", models_dir],
    }


def become_supervisor(settings: Settings, plan: dict[str, Any]) -> NoReturn:
    """Replace this process. The supervisor is told everything in its plan and environment."""
    absolute = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    command = [sys.executable, "-P", "-m", "service.supervisor", json.dumps(plan)]
    os.execve(sys.executable, command, child_environment(absolute))  # noqa: S606  # no shell wanted


def is_readable(settings: Settings) -> bool:
    """Whether a person reads the log."""
    chosen = settings.log.format
    return chosen == "console" or (chosen == "auto" and sys.stderr.isatty())


def _usable_path(source: ModelSource, models_dir: Path) -> Path | None:
    """The model's checked file; None when it has to be fetched first.

    Whether it fits into memory is for the engine to say, which knows how it would use it.
    """
    if source.needs_hub and not source.is_present(models_dir):
        return None
    path = source.local_path(models_dir)
    check_model_file(path)
    return path


def _stand_in(settings: Settings, wanted: ModelSource, models_dir: Path) -> dict[str, Any] | None:
    if settings.model.stand_in is None:
        return None
    source = resolve(settings.model.stand_in, models_dir)
    if source.name == wanted.name:
        return None
    path = _usable_path(source, models_dir)
    if path is None:
        raise ModelFileError(
            f"The stand-in {source.name} is not on this machine; choose one that is, "
            "such as pocket, which is built in."
        )
    return _to_model(source, path)


def _companions(settings: Settings, models_dir: Path) -> Iterator[dict[str, Any]]:
    """The models that embed and rerank, where there are any."""
    for mode, name in ((Mode.EMBED, settings.embed.model), (Mode.RERANK, settings.rerank.model)):
        if name is not None:
            source = resolve(name, models_dir)
            yield _to_model(source, _usable_path(source, models_dir), mode)


def _to_model(source: ModelSource, path: Path | None, mode: Mode = Mode.CHAT) -> dict[str, Any]:
    return {
        "name": source.name,
        "path": str(path) if path is not None else None,
        "source": source.wanted,
        "mode": mode,
        "adapters": [str(adapter) for adapter in source.adapters],
    }


def _why_missing(source: ModelSource, models_dir: Path) -> str:
    return (
        f"{source.name} is not on this machine (it would be {source.local_path(models_dir)}), "
        "and PARLEY_MODEL__OFFLINE forbids fetching it."
    )


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path is not None else None
