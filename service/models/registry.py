"""From what an operator types to one `ModelSource`: a catalogue name, `REPO:FILE`, or a path."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from service.domain.errors import ModelNotFound

BUILT_IN_DIR = Path(__file__).parent
CATALOG = BUILT_IN_DIR / "catalog.toml"

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILE = re.compile(r"[\w.+-]+(/[\w.+-]+)*\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model and where its file comes from.

    Either `path` is set (built in, or a file of the operator's), or `repo` and `file` are (on the
    hub). `about_…` figures are rounded and 0 where unknown; `sha256` is None where unknown.
    """

    name: str
    path: Path | None = None
    repo: str = ""
    file: str = ""
    description: str = ""
    about_bytes: int = 0
    about_memory: int = 0
    context_length: int = 0
    licence: str = ""
    sha256: str | None = None

    @property
    def wanted(self) -> str:
        """What an operator would type for it."""
        return f"{self.repo}:{self.file}" if self.repo else self.name

    @property
    def needs_hub(self) -> bool:
        """Whether the file has to be fetched before its first use."""
        return self.path is None

    def local_path(self, models_dir: Path) -> Path:
        """Where the file is, or will be once it has been fetched into `models_dir`."""
        if self.path is not None:
            return self.path
        return models_dir / self.repo.replace("/", "--") / self.file

    def is_present(self, models_dir: Path) -> bool:
        """Whether there is a file to load; downloads appear under this path only when complete."""
        return self.local_path(models_dir).is_file()


@cache
def catalog() -> Mapping[str, ModelSource]:
    """The models that have a name, in the order of `catalog.toml`."""
    entries = tomllib.loads(CATALOG.read_text(encoding="utf-8"))
    return {name: _from_entry(name, entry) for name, entry in entries.items()}


def resolve(wanted: str) -> ModelSource:
    """The source that `wanted` means.

    A name is looked up in the catalogue without regard to case. A path is taken as it is: whether
    the file is there and whole is for `check_model_file` to say. Raises `ModelNotFound` with the
    nearest names.
    """
    wanted = wanted.strip()
    named = catalog().get(wanted.lower())
    if named is not None:
        return named
    repo, separator, file = wanted.partition(":")
    if separator and _REPO.fullmatch(repo) and _is_safe_file(file):
        return _known_file(repo, file) or ModelSource(_name_of(file), repo=repo, file=file)
    if _looks_like_path(wanted):
        path = Path(wanted).expanduser().absolute()
        return ModelSource(_name_of(path.name), path=path, file=path.name)
    raise ModelNotFound(_what_instead(wanted), param="model")


def _from_entry(name: str, entry: Mapping[str, Any]) -> ModelSource:
    repo = entry.get("repo", "")
    return ModelSource(
        name=name,
        path=None if repo else BUILT_IN_DIR / entry["file"],
        repo=repo,
        file=entry["file"],
        description=entry["description"],
        about_bytes=entry["about_bytes"],
        about_memory=entry["about_memory"],
        context_length=entry["context"],
        licence=entry["licence"],
        sha256=entry.get("sha256"),
    )


def _known_file(repo: str, file: str) -> ModelSource | None:
    return next((m for m in catalog().values() if (m.repo, m.file) == (repo, file)), None)


def _is_safe_file(file: str) -> bool:
    return bool(_FILE.fullmatch(file)) and ".." not in file.split("/")


def _looks_like_path(wanted: str) -> bool:
    if wanted.startswith(("/", "./", "../", "~")):
        return True
    return ":" not in wanted and (wanted.lower().endswith(".gguf") or Path(wanted).is_file())


def _name_of(file: str) -> str:
    return Path(file).name.removesuffix(".gguf").lower()


def _what_instead(wanted: str) -> str:
    if _REPO.fullmatch(wanted):
        return (
            f"Model {wanted!r} names a repository but no file in it; "
            "write REPO:FILE, where FILE ends in .gguf."
        )
    near = difflib.get_close_matches(wanted.lower(), catalog(), n=3, cutoff=0.4)
    hint = f"the nearest names are {', '.join(near)}" if near else f"known: {', '.join(catalog())}"
    return f"Model {wanted!r} is unknown; {hint}; REPO:FILE and the path of a .gguf file work too."
