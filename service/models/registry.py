"""From what an operator types to one `ModelSource`: a catalogue name, `REPO:FILE`, or a path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from service.domain.errors import ModelNotFound
from service.models.additions import read_additions, read_tables
from service.models.source import BUILT_IN_DIR, ModelSource, from_entry

__all__ = ["BUILT_IN_DIR", "CATALOG", "ModelSource", "catalog", "known", "resolve"]

MAX_NAME = 1024
CATALOG = BUILT_IN_DIR / "catalog.toml"

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILE = re.compile(r"[\w.+-]+(/[\w.+-]+)*\.gguf", re.IGNORECASE)


@cache
def catalog() -> Mapping[str, ModelSource]:
    """The models that have a name everywhere, in the order of `catalog.toml`."""
    entries = read_tables(CATALOG)
    return {name: from_entry(name, entry, BUILT_IN_DIR) for name, entry in entries.items()}


def known(models_dir: Path | None) -> Mapping[str, ModelSource]:
    """The catalogue, and what was added in `models_dir`. Raises `ConfigurationError`."""
    return {**catalog(), **(read_additions(models_dir) if models_dir is not None else {})}


def resolve(wanted: str, models_dir: Path | None = None) -> ModelSource:
    """The source that `wanted` means.

    A name is looked up, without regard to case, in the catalogue and among what was added in
    `models_dir`. A path is taken as it is: whether the file is there and whole is for
    `check_model_file` to say. Raises `ModelNotFound` with the nearest names.
    """
    wanted = wanted.strip()
    if len(wanted) > MAX_NAME:
        raise ModelNotFound(
            f"A model's name, or the path of its file, has at most {MAX_NAME} characters; this one "
            f"has {len(wanted)}.",
            param="model",
        )
    named = known(models_dir).get(wanted.lower())
    if named is not None:
        return named
    repo, separator, file = wanted.partition(":")
    if separator and _REPO.fullmatch(repo) and _is_safe_file(file):
        return _known_file(repo, file) or ModelSource(_name_of(file), repo=repo, file=file)
    if _looks_like_path(wanted):
        path = _expanded(wanted).absolute()
        return ModelSource(_name_of(path.name), path=path, file=path.name)
    raise ModelNotFound(_what_instead(wanted, known(models_dir)), param="model")


def _known_file(repo: str, file: str) -> ModelSource | None:
    return next((m for m in catalog().values() if (m.repo, m.file) == (repo, file)), None)


def _is_safe_file(file: str) -> bool:
    parts = file.split("/")  # longer ones than 200 could not be kept as files
    return bool(_FILE.fullmatch(file)) and not any(p == ".." or len(p) > 200 for p in parts)


def _looks_like_path(wanted: str) -> bool:
    if wanted.startswith(("/", "./", "../", "~")):
        return True
    return ":" not in wanted and (wanted.lower().endswith(".gguf") or _is_file(wanted))


def _is_file(wanted: str) -> bool:
    with suppress(OSError):  # what is too long for a name is none
        return Path(wanted).is_file()
    return False


def _expanded(wanted: str) -> Path:
    try:
        return Path(wanted).expanduser()
    except RuntimeError as error:
        raise ModelNotFound(
            f"The path {wanted!r} begins with the home of a user who has none here.", param="model"
        ) from error


def _name_of(file: str) -> str:
    return Path(file).name.removesuffix(".gguf").lower()


def _what_instead(wanted: str, names: Mapping[str, ModelSource]) -> str:
    if _REPO.fullmatch(wanted):
        return (
            f"Model {wanted!r} names a repository but no file in it; "
            "write REPO:FILE, where FILE ends in .gguf."
        )
    near = difflib.get_close_matches(wanted.lower(), names, n=3, cutoff=0.5)
    hint = f"the nearest names are {', '.join(near)}" if near else f"known: {', '.join(names)}"
    return f"Model {wanted!r} is unknown; {hint}; REPO:FILE and the path of a .gguf file work too."
