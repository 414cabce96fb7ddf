"""Makes less likely what was written before."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from service.domain.sampling import Sampling
from service.engine.sampling.candidates import Ids, Row


class Penalties:
    """Makes recent tokens less likely, as llama.cpp does over prompt and answer alike."""

    def __init__(self, sampling: Sampling, window: int | None, tail: Sequence[int]) -> None:
        self._repeat = np.float32(sampling.repeat_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._presence = np.float32(sampling.presence_penalty)
        self._window = window
        self._recent: deque[int] = deque(tail if window is None else tail[-window:])
        self._counts: Counter[int] = Counter(self._recent)
        self._ids: Ids | None = None

    @classmethod
    def of(cls, sampling: Sampling, tail: Sequence[int]) -> Penalties | None:
        """None where the options are neutral; `repeat_last_n` -1 remembers everything."""
        neutral = (
            sampling.repeat_penalty == 1.0
            and sampling.frequency_penalty == 0.0
            and sampling.presence_penalty == 0.0
        )
        if neutral or sampling.repeat_last_n == 0:
            return None
        return cls(sampling, None if sampling.repeat_last_n < 0 else sampling.repeat_last_n, tail)

    def accept(self, token_id: int) -> None:
        """Remember a token; forget the one that leaves the window."""
        self._recent.append(token_id)
        self._counts[token_id] += 1
        if self._counts[token_id] == 1:
            self._ids = None
        if self._window is not None and len(self._recent) > self._window:
            gone = self._recent.popleft()
            self._counts[gone] -= 1
            if not self._counts[gone]:
                del self._counts[gone]
                self._ids = None

    def ids(self) -> Ids:
        """The tokens that are penalised."""
        if self._ids is None:
            self._ids = np.fromiter(self._counts.keys(), np.intp, len(self._counts))
        return self._ids

    def apply(self, logits: Row) -> Row:
        """The logits of `ids()`, penalised."""
        if self._repeat != 1.0:
            logits = np.where(logits > 0, logits / self._repeat, logits * self._repeat)
        if not self._frequency:
            return logits - self._presence
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        return logits - (counts * self._frequency + self._presence)
