"""The beginning of a conversation, as tokens, and who may reuse it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that were, or are to be, read under `cache_key`.

    The first `num_shared` of them were declared to be nobody's in particular: the operator's own
    system prompt. All else belongs to the key.
    """

    tokens: TokenArray
    cache_key: str
    num_shared: int = 0

    def reusable_for(self, prompt: Prefix) -> int:
        """How many first tokens of `prompt` can be taken from here; all but its last at most.

        Under another key that is the declared beginning, whole and to the token, or nothing.
        """
        if self.cache_key == prompt.cache_key:
            return self._common_with(prompt)
        shared = self.num_shared
        if not 0 < shared == prompt.num_shared < len(prompt.tokens):
            return 0
        return shared if self._common_with(prompt) >= shared else 0

    def continues(self, other: Prefix) -> bool:
        """Whether this has all that `other` has, under the same key."""
        length = len(other.tokens)
        return (
            self.cache_key == other.cache_key
            and self.num_shared == other.num_shared
            and length <= len(self.tokens)
            and bool((self.tokens[:length] == other.tokens).all())
        )

    def _common_with(self, prompt: Prefix) -> int:
        length = min(len(self.tokens), len(prompt.tokens) - 1)
        if length <= 0:
            return 0
        differs = self.tokens[:length] != prompt.tokens[:length]
        first = int(differs.argmax())
        return first if differs[first] else length
