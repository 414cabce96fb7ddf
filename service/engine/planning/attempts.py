"""What was tried with a model and what became of it, on the disk: ends loops of being killed.

The system kills a process that used too much memory, without a word. Whoever starts it again
with the same sizes is killed again. So each start notes what it tries, and what has held is
noted too; after two deaths in a row while loading, or soon after, the next start takes less.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.domain.amounts import amount
from service.engine.planning.memory import Sizes, smaller
from service.log import get_logger

_log = get_logger(__name__)

# Once may be an accident.
MAX_DEATHS = 2


@dataclass(slots=True)
class _Record:
    """When `wish` or `limit` change, the old deaths say nothing. `trying` is by `process`."""

    wish: Sizes
    limit: int
    trying: Sizes | None = None
    process: str = ""
    num_deaths: int = 0
    worked: Sizes | None = None
    fallback: Sizes | None = None


@dataclass(slots=True)
class Attempts:
    """The notes about one model, in `path`. Where they cannot be written, nothing is prevented."""

    path: Path
    proc: Path = Path("/proc")
    _record: _Record | None = field(default=None, init=False)

    def begin(self, wish: Sizes, planned: Sizes, limit: int) -> tuple[Sizes, str | None]:
        """What to try, and why it is less than `planned`, in a sentence, where it is.

        `wish` and `limit` (bytes of memory that there could ever be) are what the notes are
        about. Noted before it returns: whoever does not come back to say `worked` or `ended`
        has died.
        """
        record = self._read()
        if record is None or (record.wish, record.limit) != (wish, limit):
            record = _Record(wish, limit, worked=record.worked if record else None)
        if record.trying is not None and not self._is_running(record.process):
            record.num_deaths += 1
        if record.num_deaths >= MAX_DEATHS:
            died = record.trying or planned
            record.fallback = _less(died, record.worked) or died
            record.num_deaths = 0
        sizes = planned
        if record.fallback is not None and record.fallback.total < planned.total:
            sizes = record.fallback
        record.trying, record.process = sizes, self._own_name()
        self._record = record
        self._write(record)
        if sizes == planned:
            return sizes, None
        return sizes, (
            f"The engine died {MAX_DEATHS} times in a row before it had served, with more than "
            f"{sizes} in {amount(limit)} of memory; it runs with {sizes} instead of {planned}."
        )

    def worked(self) -> None:
        """What is being tried has held."""
        if self._record is not None and self._record.trying is not None:
            self._record.worked = self._record.trying
            self._record.num_deaths = 0
            self.ended()

    def ended(self) -> None:
        """The attempt is over, and it was not the system that ended it."""
        if self._record is not None and self._record.trying is not None:
            self._record.trying, self._record.process = None, ""
            self._write(self._record)

    def _read(self) -> _Record | None:
        """None for what is absent, torn, or not ours."""
        try:
            facts = json.loads(self.path.read_text())
            return _Record(
                wish=Sizes(**facts.pop("wish")),
                trying=_to_sizes(facts.pop("trying")),
                worked=_to_sizes(facts.pop("worked")),
                fallback=_to_sizes(facts.pop("fallback")),
                **facts,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _write(self, record: _Record) -> None:
        write_atomically(self.path, json.dumps(asdict(record)))

    def _own_name(self) -> str:
        return self._name_of(os.getpid()) or ""

    def _is_running(self, process: str) -> bool:
        number = process.partition(" ")[0]
        return bool(number) and number.isdigit() and self._name_of(int(number)) == process

    def _name_of(self, number: int) -> str | None:
        """Number and time of birth: numbers come back. None when there is no such process."""
        try:
            told = (self.proc / str(number) / "stat").read_text()
        except OSError:
            return None
        return f"{number} {told.rpartition(')')[2].split()[19]}"


def write_atomically(path: Path, text: str) -> None:
    """All of it or nothing, also when two write at once. A disk that refuses is logged only."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text)
        scratch.replace(path)
    except OSError as error:
        _log.warning("note_not_written", path=str(path), reason=error.strerror)


def _less(sizes: Sizes, worked: Sizes | None) -> Sizes | None:
    """What last worked where that is less, else half."""
    if worked is not None and worked.total < sizes.total:
        return worked
    return smaller(sizes)


def _to_sizes(facts: dict[str, Any] | None) -> Sizes | None:
    return Sizes(**facts) if facts is not None else None
