"""`parley model`: which models there are, here and on the hub, and which one answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from service.cli.group import CommandGroup
from service.cli.serve import draft_words
from service.domain.amounts import amount
from service.domain.errors import (
    Conflict,
    DownloadFailed,
    EngineUnavailable,
    InvalidRequest,
    ModelFileError,
    ModelNotFound,
    SwitchFailed,
)
from service.domain.model import Mode
from service.ipc.command import SwitchCommand, send_command
from service.ipc.status import ServiceStatus, SwitchPhase, SwitchStatus, from_line
from service.ipc.status_feed import StatusFeed
from service.models.additions import NAME, add, forget, read_additions
from service.models.gguf import check_model_file
from service.models.registry import catalog, known, resolve
from service.models.source import Adapter, ModelSource
from service.settings import Settings, child_environment, load_settings

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=CommandGroup)
def model() -> None:
    """Models: list, fetch, name, remove, weigh them, and choose the one that answers.

    \b
    Examples:
      parley model list
      parley model pull qwen2.5-1.5b-instruct
      parley model switch qwen2.5-1.5b-instruct
    """


@model.command("list")
@as_json_option
def list_models(as_json: bool) -> None:
    """List the models that have a name, which are on this machine, and which one answers.

    \b
    Example:
      parley model list
    """
    settings = load_settings()
    served = _served(settings)
    rows = [_row(source, settings, served) for source in known(_models_dir(settings)).values()]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        where = "answers" if row["serving"] else "here" if row["present"] else "on the hub"
        click.echo(
            f"{row['name']:<26} {where:<11} {_amount(row['bytes']):>8}  memory "
            f"{_amount(row['memory']):>8}  context {row['context'] or '?':>6}  {row['licence']}"
        )


@model.command()
@click.argument("name")
def pull(name: str) -> None:
    """Fetch NAME, or REPO:FILE, to this machine; what an earlier attempt fetched is kept.

    \b
    Examples:
      parley model pull qwen2.5-0.5b-instruct
      HF_ENDPOINT=https://hub.example HF_TOKEN=... parley model pull ORG/REPO:FILE.gguf
    """
    from service.models.download import Surroundings, fetch  # noqa: PLC0415  # slow to import

    settings = load_settings()
    models_dir = _models_dir(settings)
    source = resolve(name, models_dir)
    if settings.model.offline and not source.is_present(models_dir):
        raise DownloadFailed(
            f"{source.name} is not on this machine, and PARLEY_MODEL__OFFLINE forbids fetching it."
        )
    with click.progressbar(length=1000, label=source.name, show_eta=True) as bar:

        def show(done: int, total: int) -> None:
            if total:
                bar.update(1000 * done // total - bar.pos)

        around = Surroundings(hub_token=settings.model.hub_token)
        path = fetch(source, models_dir, show, around)
    check_model_file(path)
    click.echo(f"{source.name} is at {path}.")


@model.command("add")
@click.argument("name")
@click.argument("where")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="PATH[=SCALE]",
    help="A LoRA file that is a part of the model.",
)
def add_model(name: str, where: str, adapters: tuple[str, ...]) -> None:
    """Give a path, a REPO:FILE or another model the name NAME.

    \b
    Examples:
      parley model add mine /models/mine.gguf
      parley model add legal qwen2.5-0.5b-instruct --adapter /models/legal-lora.gguf=0.8
    """
    settings = load_settings()
    models_dir = _models_dir(settings)
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a name for a model: lower-case letters, digits, dots, dashes and "
            "underscores are, up to 100, beginning with a letter or digit."
        )
    if name in catalog():
        raise Conflict(f"{name} is in the catalogue already; choose another name.")
    source = replace(
        resolve(where, models_dir), name=name, adapters=tuple(map(_to_adapter, adapters))
    )
    for path in [source.path, *(adapter.path for adapter in source.adapters)]:
        if path is not None:
            check_model_file(path)
    add(models_dir, source)
    click.echo(f"{name} is {source.wanted if source.repo else source.path}.")


@model.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Forget NAME, and delete its file where that was fetched from the hub.

    \b
    Example:
      parley model remove qwen2.5-1.5b-instruct
    """
    settings = load_settings()
    models_dir = _models_dir(settings)
    source = resolve(name, models_dir)
    path = source.local_path(models_dir)
    if source.name in _served(settings):
        raise Conflict(f"{source.name} is answering; switch to another model first.")
    is_fetched = source.needs_hub and path.is_file()
    was_added = source.name in read_additions(models_dir)
    if not is_fetched and not was_added:
        raise ModelNotFound(f"{source.name} has no file that was fetched, and was not added here.")
    what = f"delete {path} ({_amount(path.stat().st_size)})" if is_fetched else f"forget {name}"
    if not yes:
        click.confirm(f"Really {what}?", abort=True)
    forget(models_dir, source.name)
    if is_fetched:
        path.unlink(missing_ok=True)
    click.echo(f"{source.name} is removed.")


@model.command()
@click.argument("name")
def switch(name: str) -> None:
    """Have NAME answer, in the service that runs on this machine; running answers go on.

    Over the network: `POST /v1/models/switch`, with a token that has the scope models:switch.

    \b
    Example:
      parley model switch qwen2.5-1.5b-instruct
    """
    settings = load_settings()
    models_dir = _models_dir(settings)
    source = resolve(name, models_dir)
    path: Path | None = source.local_path(models_dir)
    if path is not None and source.needs_hub and not path.is_file():
        path = None
    if path is not None:
        check_model_file(path)
    adapters = tuple(str(adapter) for adapter in source.adapters)
    command = SwitchCommand(source.name, path, source.wanted, source.mode, adapters)
    ended = asyncio.run(_switch(_status_socket(settings), command))
    if ended.phase is SwitchPhase.FAILED:
        raise SwitchFailed(ended.reason or f"The switch to {source.name} failed.")
    click.echo(f"{ended.model} answers.")


@model.command()
@click.argument("name")
@click.option("--slots", type=click.IntRange(1, 256), help="Conversations at once.")
@click.option("--context", type=click.IntRange(256), help="Tokens of each.")
@as_json_option
def plan(name: str, slots: int | None, context: int | None, as_json: bool) -> None:
    """Say how much memory NAME would take, and whether this machine has it now.

    \b
    Example:
      parley model plan qwen2.5-1.5b-instruct --slots 4 --context 8192
    """
    wish = {"slots": slots, "context_length": context}
    settings = load_settings({"engine": {k: v for k, v in wish.items() if v is not None}})
    models_dir = _models_dir(settings)
    source = resolve(name, models_dir)
    path = source.local_path(models_dir)
    if not path.is_file():
        raise ModelFileError(f"{source.name} is not on this machine; `parley model pull {name}`.")
    facts = _weigh(settings, path, source.mode)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    if "weights" not in facts:
        raise ModelFileError(str(facts["reason"]))
    parts = ("weights", "conversations", "working", "process")
    click.echo(f"{facts['slots']} slots of {facts['context_length']} tokens:")
    for part in parts:
        click.echo(f"  {part:<14} {_amount(facts[part]):>9}")
    click.echo(f"  {'together':<14} {_amount(sum(facts[part] for part in parts)):>9}")
    click.echo(f"  {'available now':<14} {_amount(facts['available']):>9}")
    if facts["reason"]:
        click.echo(facts["reason"])


# ------------------------------------------------------------------------------------- inside


def _models_dir(settings: Settings) -> Path:
    return settings.models_dir


def _row(source: ModelSource, settings: Settings, served: frozenset[str]) -> dict[str, Any]:
    path = source.local_path(_models_dir(settings))
    present = path.is_file()
    return {
        "name": source.name,
        "description": source.description,
        "present": present,
        "serving": source.name in served,
        "path": str(path) if present else None,
        "source": source.wanted,
        "mode": source.mode,
        "bytes": path.stat().st_size if present else source.about_bytes,
        "memory": source.about_memory,
        "context": source.context_length,
        "licence": source.licence,
        "sha256": source.sha256,
    }


def _to_adapter(text: str) -> Adapter:
    path, separator, scale = text.rpartition("=")
    if not separator:
        return Adapter(Path(text).expanduser().absolute())
    try:
        return Adapter(Path(path).expanduser().absolute(), float(scale))
    except ValueError as error:
        raise InvalidRequest(f"{scale!r} is no scale; a number such as 0.8 is.") from error


def _amount(size: int) -> str:
    return amount(size) if size else "?"


def _weigh(settings: Settings, path: Path, mode: Mode) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "service.engine.weigh"]
    done = subprocess.run(  # noqa: S603  # our own program
        [*command, *draft_words(settings), "--model-path", str(path.absolute()), "--mode", mode],
        env=child_environment(settings),
        check=False,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise ModelFileError(f"{path} cannot be read as a model: llama.cpp ended over it.")
    return dict(json.loads(lines[-1]))


def _find_sockets(settings: Settings) -> list[Path]:
    """Where the supervisors of this user's services listen."""
    if settings.runtime_dir is not None:
        places = [settings.runtime_dir / "status.sock"]
    else:
        pattern = f"parley-{os.getuid()}-*/status.sock"
        bases = {Path(tempfile.gettempdir()), Path(f"/run/user/{os.getuid()}")}
        places = [place for base in bases if base.is_dir() for place in base.glob(pattern)]
    return [place for place in places if _answers(place)]


def _status_socket(settings: Settings) -> Path:
    """Of the one service that runs. Raises `EngineUnavailable` or `Conflict`."""
    found = _find_sockets(settings)
    if len(found) > 1:
        names = ", ".join(str(place.parent) for place in found)
        raise Conflict(f"Several services run here; set PARLEY_RUNTIME_DIR to one of {names}.")
    if not found:
        raise EngineUnavailable(
            "No service of yours runs on this machine; start it with `parley serve --model NAME`, "
            "or set PARLEY_RUNTIME_DIR to where it runs."
        )
    return found[0]


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0


def _served(settings: Settings) -> frozenset[str]:
    """The models that this user's services have loaded on this machine."""
    names: set[str] = set()
    for place in _find_sockets(settings):
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as reader:
            reader.settimeout(5)
            reader.connect(str(place))
            with reader.makefile("rb") as lines:
                names |= {engine.model for engine in from_line(lines.readline()).engines}
    return frozenset(names)


async def _switch(place: Path, command: SwitchCommand) -> SwitchStatus:
    """Ask, and tell how far it is until it is over."""
    number = await send_command(place, command)
    over: asyncio.Future[SwitchStatus] = asyncio.get_running_loop().create_future()
    told: list[SwitchPhase] = []

    def hear(status: ServiceStatus) -> None:
        switch = status.switch
        if switch is None or switch.id != number or over.done():
            return
        if told[-1:] != [switch.phase]:
            told.append(switch.phase)
            click.echo(f"{switch.model}: {switch.phase}", err=True)
        if switch.is_over:
            over.set_result(switch)

    def lost() -> None:
        if not over.done():
            over.set_exception(EngineUnavailable("The service stopped before the switch was over."))

    feed = asyncio.create_task(StatusFeed(place, hear, lost).follow())
    try:
        return await over
    finally:
        feed.cancel()
