"""Parked conversations on disk, so that they outlive the process.

A file is a head, a header (msgpack) and the state. Nobody's name is in it: of the cache key there
is a keyed hash. What is torn, damaged, too old or of another model is deleted and not missed.
"""

from __future__ import annotations

import os
import queue
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from service import log, metrics
from service.domain.chat import PromptPiece
from service.engine.kv.parking import MIN_TOKENS, Parked
from service.engine.kv.prefix import Prefix
from service.engine.kv.tier import Tier
from service.engine.kv.transcripts import Transcript

# A conversation to which nobody has come back for so long is forgotten.
KEEP_SECONDS = 24 * 3600.0
# An unfinished file of that age is nobody's any more.
_STALE_SECONDS = 600.0
# Magic, length and checksum of the header, checksum and length of the state.
_HEAD = struct.Struct("<8sIIIQ")
_MAGIC = b"PARLEYKV"
_MAX_HEADER = 64 * 1024 * 1024
# What reading a byte takes until it has been measured.
_ASSUMED_SECONDS_PER_BYTE = 2e-9
_SUFFIX, _UNFINISHED = ".parked", ".part"

_log = log.get_logger(__name__)


class _Header(msgspec.Struct, array_like=True, frozen=True):
    fingerprint: str
    tag: str
    tokens: bytes
    num_shared: int
    seconds: float
    prompt: tuple[PromptPiece, ...] = ()
    said: bytes = b""
    num_prompt: int = 0


_decoder = msgspec.msgpack.Decoder(_Header)


@dataclass(eq=False, slots=True)
class _Archived:
    path: Path
    prefix: Prefix
    size: int
    seconds: float
    written: float
    transcript: Transcript | None
    rank: float = 0.0


class Archive:
    """Files in one directory, within a budget of bytes. A thread of its own writes them.

    `put` and `fetch` from any thread. Times are those of `clock` (seconds since 1970).
    """

    def __init__(
        self,
        directory: Path,
        fingerprint: str,
        budget: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._fingerprint = fingerprint
        self._clock = clock
        self._tier: Tier[_Archived] = Tier(budget)
        self._lock = threading.Lock()
        self._seconds_per_byte = _ASSUMED_SECONDS_PER_BYTE
        self._pending: queue.SimpleQueue[Parked | None] = queue.SimpleQueue()
        self._pending_bytes = 0
        self._idle = threading.Condition(self._lock)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index()
        self._writer = threading.Thread(target=self._write_all, name="archive", daemon=True)
        self._writer.start()

    def transcripts(self) -> Iterator[tuple[str, Transcript]]:
        """What was said, with its tag, of all that is here; the latest last."""
        with self._lock:
            entries = sorted(self._tier, key=lambda entry: entry.written)
        for entry in entries:
            if entry.transcript is not None:
                yield entry.prefix.cache_key, entry.transcript

    def put(self, parked: Parked) -> None:
        """Have it written soon; not at all while more is waiting to be than may be kept."""
        with self._lock:
            if self._pending_bytes + parked.size > self._tier.budget:
                return
            self._pending_bytes += parked.size
        self._pending.put(parked)

    @property
    def pending_bytes(self) -> int:
        """What is waiting to be written."""
        return self._pending_bytes

    def fetch(self, prompt: Prefix, present: int) -> Parked | None:
        """What has most of the prompt (under its tag), if that is more than the `present` tokens by
        enough. It is not here any more then."""
        with self._lock:
            found = [(entry.prefix.reusable_for(prompt), entry) for entry in self._tier]
            length, entry = max(found, key=lambda one: one[0], default=(0, None))
            if entry is None or length < present + MIN_TOKENS:
                return None
            share = length / len(entry.prefix.tokens)
            if entry.size * self._seconds_per_byte > entry.seconds * share:
                return None
            self._tier.remove(entry)
            self._publish()
        return self._read(entry)

    def close(self, seconds: float) -> None:
        """Write what is waiting, for so long at most; no more is written then."""
        with self._idle:
            done = self._idle.wait_for(lambda: self._pending_bytes == 0, max(0.0, seconds))
        if not done:
            _log.warning(
                "parked_not_written", reason="there was no time", bytes=self._pending_bytes
            )
        self._pending.put(None)

    def wait(self) -> None:
        """Until all that was to be written has been."""
        with self._idle:
            self._idle.wait_for(lambda: self._pending_bytes == 0)

    # --- reading -----------------------------------------------------------------------------
    def _index(self) -> None:
        """Find what an earlier process has left; delete what is of no use."""
        paths = sorted(self._directory.iterdir(), key=_age_of)
        for path in paths:
            if path.suffix == _UNFINISHED and self._clock() - _age_of(path) > _STALE_SECONDS:
                path.unlink(missing_ok=True)
            if path.suffix != _SUFFIX:
                continue
            entry = self._header_of(path)
            if entry is None:
                _log.info("parked_file_dropped", file=path.name)
                path.unlink(missing_ok=True)
                continue
            self._drop(self._tier.add(entry))
        self._publish()

    def _header_of(self, path: Path) -> _Archived | None:
        """None for what is no good here."""
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD.size)
                magic, length, check, _, state_size = _HEAD.unpack(head)
                size = _HEAD.size + length + state_size
                if magic != _MAGIC or length > _MAX_HEADER or path.stat().st_size != size:
                    return None
                data = file.read(length)
                written = path.stat().st_mtime
            header = _decoder.decode(data)
        except (OSError, struct.error, msgspec.DecodeError):
            return None
        is_old = self._clock() - written > KEEP_SECONDS
        if zlib.crc32(data) != check or header.fingerprint != self._fingerprint or is_old:
            return None
        return _Archived(
            path,
            Prefix(np.frombuffer(header.tokens, np.int32), header.tag, header.num_shared),
            size,
            header.seconds,
            written,
            _transcript_of(header),
        )

    def _read(self, entry: _Archived) -> Parked | None:
        """The file's state, if it is whole. The file is gone before anybody trusts it."""
        started = time.monotonic()
        try:
            with entry.path.open("rb") as file:
                _, length, _, check, state_size = _HEAD.unpack(file.read(_HEAD.size))
                file.seek(length, os.SEEK_CUR)
                state = np.fromfile(file, np.uint8, state_size)
            entry.path.unlink()
        except (OSError, struct.error) as error:
            _log.warning("parked_file_unreadable", file=entry.path.name, reason=str(error))
            return None
        if state.nbytes != state_size or zlib.crc32(state.data) != check:
            _log.warning("parked_file_damaged", file=entry.path.name)
            return None
        seconds = time.monotonic() - started
        self._seconds_per_byte += (seconds / entry.size - self._seconds_per_byte) / 4
        return Parked(entry.prefix, state, entry.seconds, entry.transcript, tier="disk")

    # --- writing -----------------------------------------------------------------------------
    def _write_all(self) -> None:
        while (parked := self._pending.get()) is not None:
            try:
                self._write(parked)
            except OSError as error:
                _log.warning("parked_not_written", reason=str(error))
            finally:
                with self._idle:
                    self._pending_bytes -= parked.size
                    self._idle.notify_all()

    def _write(self, parked: Parked) -> None:
        header = _header_for(parked, self._fingerprint)
        path = self._directory / f"{secrets.token_hex(16)}{_SUFFIX}"
        unfinished = path.with_suffix(_UNFINISHED)
        state = parked.state
        size = _HEAD.size + len(header) + state.nbytes
        entry = _Archived(
            path, parked.prefix, size, parked.seconds, self._clock(), parked.transcript
        )
        with self._lock:
            expired = [e for e in self._tier if self._clock() - e.written > KEEP_SECONDS]
            earlier = [e for e in self._tier if parked.prefix.continues(e.prefix)]
            gone = {id(e): e for e in (*expired, *earlier)}.values()
            for old in gone:
                self._tier.remove(old)
        self._drop(list(gone))
        checks = zlib.crc32(header), zlib.crc32(state.data)
        head = _HEAD.pack(_MAGIC, len(header), *checks, state.nbytes)
        try:
            with _create(unfinished) as file:
                for part in (head, header, state.data):
                    file.write(part)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        with self._lock:
            over = self._tier.add(entry)
            self._publish()
        self._drop(over)

    def _drop(self, entries: list[_Archived]) -> None:
        for entry in entries:
            entry.path.unlink(missing_ok=True)

    def _publish(self) -> None:
        metrics.PARKED_BYTES.labels("disk").set(self._tier.size)
        metrics.PARKED_CONVERSATIONS.labels("disk").set(len(self._tier))


def read_salt(directory: Path) -> bytes:
    """What hashes of cache keys are keyed with: made at first, the same ever after."""
    path = directory / "salt"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError), _create(path) as file:
        file.write(secrets.token_bytes(32))
    return path.read_bytes()


def _create(path: Path) -> BinaryIO:
    """A new file for our eyes only."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _age_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has just taken it
        return 0.0


def _header_for(parked: Parked, fingerprint: str) -> bytes:
    said = parked.transcript
    prefix = parked.prefix
    header = _Header(
        fingerprint,
        prefix.cache_key,
        prefix.tokens.tobytes(),
        prefix.num_shared,
        parked.seconds,
        *((said.prompt, said.tokens.tobytes(), said.num_prompt) if said is not None else ()),
    )
    return msgspec.msgpack.encode(header)


def _transcript_of(header: _Header) -> Transcript | None:
    if not header.prompt:
        return None
    return Transcript(header.prompt, np.frombuffer(header.said, np.int32), header.num_prompt)
