"""The bytes of every token, as close together as they can lie.

A vocabulary of 152 000 tokens is 7 MB as a list of bytes, and under 2 MB like this.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

# Tokens whose bytes are kept as they were asked for: a text is made of few, again and again.
_NUM_KEPT = 4096


class Spellings:
    """What each token id from 0 on stands for. Any thread."""

    __slots__ = ("_bytes", "_starts", "of")

    def __init__(self, texts: Iterable[bytes]) -> None:
        joined = bytearray()
        self._starts = array("I", [0])
        for text in texts:
            joined += text
            self._starts.append(len(joined))
        self._bytes = bytes(joined)
        self.of = lru_cache(_NUM_KEPT)(self._of)
        """The bytes of a token."""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[bytes]:
        return map(self._of, range(len(self)))

    @property
    def longest(self) -> int:
        """Bytes of the longest one; 0 where there is none."""
        return int(np.diff(np.asarray(self._starts)).max(initial=0))

    def holding(self, byte: bytes) -> list[int]:
        """The tokens in which this one byte occurs, in order."""
        places = np.frombuffer(self._bytes, np.uint8) == byte[0]
        after = np.searchsorted(np.asarray(self._starts), places.nonzero()[0], side="right")
        found: list[int] = np.unique(after - 1).tolist()
        return found

    def _of(self, token_id: int) -> bytes:
        return self._bytes[self._starts[token_id] : self._starts[token_id + 1]]
