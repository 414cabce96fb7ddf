"""Models that the operator gave a name: `registry.toml` in the models' directory.

A file for people, too: what is written here can be changed by hand, and golden prompts added.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.domain.errors import ConfigurationError
from service.domain.model import Mode
from service.models.source import ModelSource, from_entry

FILE = "registry.toml"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def read_additions(models_dir: Path) -> Mapping[str, ModelSource]:
    """By name; none where nothing was added. Raises `ConfigurationError` for a broken file."""
    path = models_dir / FILE
    entries = read_tables(path) if path.exists() else {}
    return {name: from_entry(name, entry, models_dir) for name, entry in entries.items()}


def read_tables(path: Path) -> Mapping[str, Mapping[str, object]]:
    """The tables of a TOML file. Raises `ConfigurationError` in one sentence."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:  # not TOML, or not even text
        raise ConfigurationError(f"{path} is not a table of models: {error}.") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path} is not a table of models: {name!r} is no table.")
    return tables


def add(models_dir: Path, source: ModelSource) -> None:
    """Keep `source` under its name. Raises `ConfigurationError` where that cannot be written."""
    known = dict(read_additions(models_dir))
    known[source.name] = source
    _write(models_dir, known)


def forget(models_dir: Path, name: str) -> bool:
    """Whether there was such a name; its file is left alone."""
    known = dict(read_additions(models_dir))
    if known.pop(name, None) is None:
        return False
    _write(models_dir, known)
    return True


def _write(models_dir: Path, sources: Mapping[str, ModelSource]) -> None:
    path = models_dir / FILE
    text = "\n".join(
        ["# Models that have a name on this machine; `parley model add` writes here.\n"]
        + ["\n".join(_to_lines(source)) + "\n" for source in sources.values()]
    )
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{FILE}.{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror}).") from error


def _to_lines(source: ModelSource) -> Iterator[str]:
    yield f"[{_quoted(source.name)}]"
    if source.repo:
        yield f"repo = {_quoted(source.repo)}"
    yield f"file = {_quoted(source.file if source.repo else str(source.path))}"
    for key, text in (("description", source.description), ("licence", source.licence)):
        if text:
            yield f"{key} = {_quoted(text)}"
    for key, number in (
        ("about_bytes", source.about_bytes),
        ("about_memory", source.about_memory),
        ("context", source.context_length),
        ("min_tokens_per_second", source.min_tokens_per_second),
    ):
        if number:
            yield f"{key} = {number}"
    if source.sha256 is not None:
        yield f"sha256 = {_quoted(source.sha256)}"
    if source.mode is not Mode.CHAT:
        yield f"mode = {_quoted(source.mode)}"
    for adapter in source.adapters:
        yield f"[[{_quoted(source.name)}.adapters]]"
        yield f"path = {_quoted(str(adapter.path))}"
        yield f"scale = {float(adapter.scale)}"
    for golden in source.golden:
        yield f"[[{_quoted(source.name)}.golden]]"
        yield f"prompt = {_quoted(golden.prompt)}"
        yield f"pattern = {_quoted(golden.pattern)}"


def _quoted(text: str) -> str:
    """A basic string of TOML, which JSON's strings are but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
