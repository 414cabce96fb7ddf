"""What an engine keeps of conversations outside of its slots, and where."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from service import log
from service.domain.chat import Prompt
from service.engine.kv.archive import Archive, read_salt
from service.engine.kv.parking import Parked, Parking
from service.engine.kv.prefix import Prefix
from service.engine.kv.transcripts import Splice, Transcript, Transcripts
from service.engine.planning.machine import available_memory
from service.engine.runner import ModelRunner
from service.settings import EngineSettings

# Of the memory that is left once the model is loaded, where the operator does not say.
_SHARE_OF_MEMORY = 4
_MOST_BY_DEFAULT = 8 * 2**30

_log = log.get_logger(__name__)


class Cache:
    """States in memory and on disk, and texts as tokens; each key's own, but by their hashes."""

    def __init__(self, runner: ModelRunner, budget: int, archive: Archive | None, salt: bytes):
        self._salt = salt
        self._archive = archive
        self._transcripts = Transcripts(runner.spelling)
        # What is on disk, and in these slots, too.
        self._at_hand: dict[int, Prefix] = {}
        self.parking = Parking(budget, self._tag, self._evict)
        for tag, transcript in archive.transcripts() if archive is not None else ():
            self._transcripts.remember(tag, transcript)

    # --- any thread --------------------------------------------------------------------------
    def splice(self, cache_key: str, prompt: Prompt) -> Splice | None:
        """The beginning of `prompt` that is known as tokens under this key."""
        return self._transcripts.splice(self._tag(cache_key), prompt)

    def fetch(self, prompt: Prefix) -> None:
        """Bring into memory what is on disk of the prompt, if that is much."""
        if self._archive is None:
            return
        nearer, wanted = self.parking.best_for(prompt), self.parking.tagged(prompt)
        at_hand = [prefix.reusable_for(wanted) for prefix in list(self._at_hand.values())]
        parked = self._archive.fetch(wanted, max(nearer[1] if nearer else 0, *at_hand, 0))
        if parked is not None:
            self.parking.put(parked)

    # --- the engine thread -------------------------------------------------------------------
    def remember(self, cache_key: str, transcript: Transcript) -> None:
        """What was said under this key, as text and as tokens."""
        self._transcripts.remember(self._tag(cache_key), transcript)

    def keep(self, parked: Parked) -> None:
        """For after the end of this process."""
        self._evict(parked)

    @property
    def outlives(self) -> bool:
        """Whether anything is left of it when the process is gone."""
        return self._archive is not None

    @property
    def is_writing(self) -> bool:
        """Whether what was kept before is on its way to the disk still."""
        return self._archive is not None and self._archive.pending_bytes > 0

    def unkept(self) -> list[float]:
        """Since when there has been what is in memory only."""
        return [parked.since for parked in self.parking.unkept()] if self._archive else []

    def keep_one(self, before: float) -> int:
        """A copy on disk of what has been in memory for longest, if that was before then; its size
        in bytes, 0 where there is none."""
        oldest = min(self.parking.unkept(), key=lambda parked: parked.since, default=None)
        if self._archive is None or oldest is None or oldest.since > before:
            return 0
        self._archive.put(oldest)
        oldest.is_kept = True
        return oldest.size

    def holds(self, slot: int, prefix: Prefix | None) -> None:
        """The slot has been filled anew: with this, which is on disk as well, or with something
        else."""
        self._at_hand.pop(slot, None)
        if prefix is not None:
            self._at_hand[slot] = prefix

    def cut(self, slot: int, length: int) -> None:
        """Only so many first tokens are left in the slot."""
        prefix = self._at_hand.get(slot)
        if prefix is not None and length < len(prefix.tokens):
            del self._at_hand[slot]

    def has_copy(self, slot: int, num_tokens: int) -> bool:
        """Whether all that the slot holds is on disk."""
        prefix = self._at_hand.get(slot)
        return prefix is not None and len(prefix.tokens) == num_tokens

    def close(self, seconds: float) -> None:
        """What is in memory goes to disk, for so many seconds at most."""
        if self._archive is None:
            return
        for parked in self.parking.empty():
            self._evict(parked)
        self._archive.close(seconds)

    # --- inside ------------------------------------------------------------------------------
    def _evict(self, parked: Parked) -> None:
        if self._archive is not None and not parked.is_kept:
            self._archive.put(parked)

    def _tag(self, cache_key: str) -> str:
        return hashlib.blake2b(cache_key.encode(), key=self._salt, digest_size=16).hexdigest()


def create_cache(
    runner: ModelRunner, settings: EngineSettings, directory: Path | None = None
) -> Cache:
    """As the settings say. Nothing is written to disk without a directory."""
    budget = settings.parked_bytes
    if budget is None:
        budget = min(available_memory() // _SHARE_OF_MEMORY, _MOST_BY_DEFAULT)
    archive, salt = None, secrets.token_bytes(32)
    if directory is not None and settings.archived_bytes > 0:
        try:
            salt = read_salt(directory)
            archive = Archive(directory, runner.fingerprint, settings.archived_bytes)
        except OSError as error:
            _log.warning("parked_not_kept", directory=str(directory), reason=str(error))
    return Cache(runner, budget, archive, salt)
