"""What is known of one model: where its file comes from, and what it is expected to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.domain.errors import ConfigurationError
from service.domain.model import Mode

BUILT_IN_DIR = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Golden:
    """A prompt, and a regular expression that the answer has to match somewhere."""

    prompt: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA file that is a part of the model, and how much it counts."""

    path: Path
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.path}={self.scale}"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model and where its file comes from.

    Either `path` is set (built in, or a file of the operator's), or `repo` and `file` are (on the
    hub). `about_…` figures are rounded and 0 where unknown; `sha256` is None where unknown. Before
    it gets any request that was not its own before, a model answers its `golden` prompts, at
    `min_tokens_per_second` at least.
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
    mode: Mode = Mode.CHAT
    adapters: tuple[Adapter, ...] = ()
    golden: tuple[Golden, ...] = ()
    min_tokens_per_second: float = 0.0

    @property
    def wanted(self) -> str:
        """What an operator would type for it."""
        return f"{self.repo}:{self.file}" if self.repo else self.name

    @property
    def needs_hub(self) -> bool:
        """Whether the file has to be fetched before its first use."""
        return self.path is None

    def local_path(self, models_dir: Path) -> Path:
        """Where the file is, or will be once it has been fetched into `models_dir`.

        A file that lies there without a folder of its own counts, too: so other programs leave
        what they have fetched.
        """
        if self.path is not None:
            return self.path
        beside = models_dir / self.file
        if beside.is_file():
            return beside
        return models_dir / self.repo.replace("/", "--") / self.file

    def is_present(self, models_dir: Path) -> bool:
        """Whether there is a file to load; downloads appear under this path only when complete."""
        return self.local_path(models_dir).is_file()


def from_entry(name: str, entry: Mapping[str, Any], at: Path) -> ModelSource:
    """The source that a table of a TOML file in the directory `at` describes.

    Raises `ConfigurationError` naming the model and what is wrong.
    """
    try:
        return _from_entry(name, entry, at)
    except (KeyError, TypeError, ValueError, re.error) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigurationError(f"The entry of the model {name!r}: {reason}.") from error


def _from_entry(name: str, entry: Mapping[str, Any], at: Path) -> ModelSource:
    repo, file = str(entry.get("repo", "")), str(entry["file"])
    return ModelSource(
        name=name,
        path=None if repo else at / file,
        repo=repo,
        file=file if repo else Path(file).name,
        description=str(entry.get("description", "")),
        about_bytes=int(entry.get("about_bytes", 0)),
        about_memory=int(entry.get("about_memory", 0)),
        context_length=int(entry.get("context", 0)),
        licence=str(entry.get("licence", "")),
        sha256=entry.get("sha256"),
        mode=Mode(entry.get("mode", Mode.CHAT)),
        adapters=tuple(_adapters(entry.get("adapters", ()), at)),
        golden=tuple(_golden(entry.get("golden", ()))),
        min_tokens_per_second=float(entry.get("min_tokens_per_second", 0.0)),
    )


def _adapters(tables: Iterable[Mapping[str, Any]], at: Path) -> Iterable[Adapter]:
    for table in tables:
        yield Adapter(at / str(table["path"]), float(table.get("scale", 1.0)))


def _golden(tables: Iterable[Mapping[str, Any]]) -> Iterable[Golden]:
    for table in tables:
        re.compile(pattern := str(table["pattern"]))
        yield Golden(str(table["prompt"]), pattern)
