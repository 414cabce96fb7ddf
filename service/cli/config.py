"""`parley config`: what the settings are, whether they hold, and what there is to set."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from service.cli.group import CommandGroup
from service.cli.serve import make_plan
from service.secret_files import SUFFIX
from service.setting_groups import is_secret
from service.settings import PREFIX, Group, Settings, load_settings, to_environment

URL_PASSWORD = re.compile(r"(://[^/:@\s]*:)\S*@|([?&]\w*pass\w*=)[^&\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: its variable, what it is for, and its default (None: unset)."""

    variable: str
    description: str
    default: str | None
    note: str = ""
    is_secret: bool = False


@click.group(cls=CommandGroup)
def config() -> None:
    """The settings: show them, check them, or print an example file.

    \b
    Examples:
      parley config show
      parley config example > parley.env
    """


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(as_json: bool) -> None:
    """Print the settings as they are now, secrets masked.

    \b
    Example:
      PARLEY_API__PORT=9000 parley config show | grep PORT
    """
    values = to_environment(load_settings())
    table = {s.variable: _masked(s, values.get(s.variable)) for s in known_settings()}
    if as_json:
        click.echo(json.dumps(table, indent=1))
        return
    for variable, value in table.items():
        click.echo(f"{variable}={value}" if value is not None else f"# {variable} is unset")


@config.command()
def check() -> None:
    """Check the settings and the model's file without starting: exit code 0, or 2 and a sentence.

    \b
    Example:
      PARLEY_MODEL__NAME=/models/mine.gguf parley config check
    """
    plan = make_plan(load_settings(), readable=False)
    model = plan["wanted"]
    where = model["path"] or "not on this machine yet; it is fetched at the start"
    click.echo(f"The settings hold. Model {model['name']}: {where}.")


@config.command()
def example() -> None:
    """Print a file with every setting, what it is for, and its default.

    \b
    Example:
      parley config example > /etc/parley/parley.env
    """
    click.echo(example_file(), nl=False)


def known_settings() -> Iterator[Setting]:
    """Every setting in the order of the table."""
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Group):
            for inner, inner_field in kind.model_fields.items():
                yield _setting(f"{PREFIX}{name}__{inner}".upper(), inner_field)
        else:
            yield _setting(f"{PREFIX}{name}".upper(), field)


def example_file() -> str:
    """An environment file in which every setting is commented out at its default."""
    lines = [
        "# Parley's settings, each at its default. Remove the '#' in front of what you change."
    ]
    for setting in known_settings():
        lines.append("")
        lines += textwrap.wrap(
            setting.description + setting.note, 98, initial_indent="# ", subsequent_indent="# "
        )
        value = "" if setting.default is None else _quoted(setting.default)
        lines.append(f"#{setting.variable}={value}")
    return "\n".join(lines) + "\n"


def _setting(variable: str, field: FieldInfo) -> Setting:
    description = field.description or ""
    if field.default_factory is not None:
        value = field.get_default(call_default_factory=True, validated_data={})
        home = str(Path.home())
        return Setting(variable, description, str(value).replace(home, "~", 1), " (by platform)")
    if field.default is None:
        note = " (unset by default)"
        if is_secret(field):
            note += f" A secret: {variable}{SUFFIX} names a file with it, instead."
        return Setting(variable, description, None, note, is_secret(field))
    value = field.default
    text = json.dumps(value) if isinstance(value, bool | int | float) else str(value)
    return Setting(variable, description, text, _bounds(field))


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{words[name]} {bound}"
        for rule in field.metadata
        for name in words
        if (bound := getattr(rule, name, None)) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"[\s#'$]", value) else value


def _masked(setting: Setting, value: str | None) -> str | None:
    if value is None or not setting.is_secret:
        return value
    return URL_PASSWORD.sub(_hidden, value) if "://" in value else "***"


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1]}***@" if found[1] else f"{found[2]}***"
