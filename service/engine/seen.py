"""What a prompt shows besides words: rows of numbers for the places whose ids are below zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.chat import Prompt
from service.domain.errors import Unsupported

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """`places` ascend; the model reads `rows`, one for each of them, instead of tokens."""

    places: NDArray[np.int64]
    rows: Rows

    @classmethod
    def of(cls, token_ids: Sequence[int], rows: Rows) -> Seen:
        return cls(np.flatnonzero(np.asarray(token_ids, np.int64) < 0), rows)

    def stretch(self, start: int, count: int) -> tuple[int, Rows | None]:
        """How many of the `count` places from `start` are read in one go, and as what: rows of
        pictures, or (None) tokens."""
        at = int(np.searchsorted(self.places, start))
        ahead = self.places[at : at + count]
        if not len(ahead) or ahead[0] != start:
            return min(count, int(ahead[0]) - start if len(ahead) else count), None
        together = ahead == np.arange(start, start + len(ahead))
        num = len(ahead) if together.all() else int(together.argmin())
        return num, self.rows[at : at + num]


class Sight(Protocol):
    """Makes pictures into places of a prompt (see sight.py). Tokenizer thread."""

    def look(self, prompt: Prompt, pictures: Sequence[bytes], /) -> tuple[Prompt, Rows]: ...


def looking(sight: Sight | None) -> Sight:
    """Raises `Unsupported` where there is none."""
    if sight is None:
        raise Unsupported("This model reads only text: it has no projector file (mmproj).")
    return sight
