"""`parley calibrate`: how a model is best computed on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from service.domain.errors import ModelFileError
from service.models.gguf import check_model_file
from service.models.registry import resolve
from service.settings import Settings, child_environment, load_settings


@click.command()
@click.option(
    "--model",
    metavar="NAME|PATH",
    help="A catalogue name, REPO:FILE on the model hub, or a .gguf file.  [default: as configured]",
)
@click.option("--show", is_flag=True, help="Tell what was measured before; measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def calibrate(model: str | None, show: bool, as_json: bool) -> None:
    """Measure how a model is best computed here: threads, OpenBLAS, flash attention.

    The first start of a model measures by itself; this does it anew, best while nothing else is
    running. A service that is running takes it over when it is restarted.

    \b
    Examples:
      parley calibrate
      parley calibrate --model /models/mine.gguf
      parley calibrate --show
    """
    overrides = {"model": {"name": model}} if model is not None else {}
    settings = load_settings(overrides)
    facts = ask(settings, _local_path(settings), show=show)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for line in to_lines(facts):
        click.echo(line)


def ask(settings: Settings, path: Path, *, show: bool) -> dict[str, Any]:
    """What the engine says about the model, which it loads in a process of its own.

    Raises `ModelFileError` with its sentence, or one about how it died.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "service.engine.report",
        "--model-path",
        str(path),
    ]
    done = subprocess.run(  # noqa: S603  # ours
        [*command, "--show"] if show else command,
        env=child_environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise ModelFileError(
            f"{path} cannot be measured: the engine ended with exit code {done.returncode}; "
            "the reason is in the log above."
        )
    facts: dict[str, Any] = json.loads(done.stdout)
    if facts.pop("event") == "failed":
        raise ModelFileError(facts["reason"])
    return facts


def to_lines(facts: dict[str, Any]) -> list[str]:
    """The report for people."""
    lines = [
        f"processor   {facts['processor'] or 'unknown'}, kernels: {facts['kernels']}",
        f"memory      {facts['sizes']} take {facts['memory']}",
    ]
    if facts["sizes"] != facts["wish"]:
        lines.append(f"            ({facts['wish']} were wished for)")
    if not facts["found"]:
        return [*lines, "Nothing has been measured for this model yet; leave out --show."]
    lines.append(f"decision    {facts['decision']}")
    if facts["reason"]:
        return [*lines, f"            not measured: {facts['reason']}"]
    lines += ["", f"{'':2}{'what':28}{'how':24}{'ms per token':>12}"]
    for row in facts["table"]:
        mark = "*" if row["chosen"] else " "
        milliseconds = row["seconds_per_token"] * 1000
        lines.append(f"{mark:2}{row['question']:28}{row['option']:24}{milliseconds:12.3f}")
    lines += ["", f"measured in {facts['seconds']:.1f} s"]
    if facts["is_disturbed"]:
        lines.append(
            f"Other processes were using the processors ({facts['waited']:.0%} of the time was "
            "spent waiting for one), so only what is usual was kept; measure again without them."
        )
    return [*lines, facts["advice"]] if facts["advice"] else lines


def _local_path(settings: Settings) -> Path:
    source = resolve(settings.model.name)
    models_dir = settings.models_dir
    if source.needs_hub and not source.is_present(models_dir):
        raise ModelFileError(
            f"{source.name} is not on this machine (it would be {source.local_path(models_dir)})."
        )
    path = source.local_path(models_dir)
    check_model_file(path)
    return path
