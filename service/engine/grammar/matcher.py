"""What one answer is held to, token by token. Engine thread only."""

from __future__ import annotations

import time

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from service import metrics
from service.engine.runner import DeadEnd, Matcher
from service.engine.spellings import Spellings

# Bytes of white space between a thought and what is held to a grammar.
_MAX_GAP = 4

Mask = NDArray[np.bool_]


class GrammarMatcher:
    """Holds an answer to a compiled grammar from its first token; see `Matcher`.

    A token that ends answers may come where the grammar is complete, and where it is named.
    """

    def __init__(self, grammar: LLMatcher, ends: frozenset[int], vocabulary_size: int) -> None:
        self._grammar = grammar
        self._ends = ends
        self._size = vocabulary_size
        self._bits = np.zeros((vocabulary_size + 31) // 32, np.uint32)

    def validate(self, token_id: int) -> bool:
        if token_id in self._ends and self._grammar.is_accepting():
            return True
        return self._grammar.validate_tokens([token_id]) == 1

    def allowed(self) -> Mask:
        started = time.perf_counter()
        self._grammar.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._grammar.is_error():
            raise _dead_end(self._grammar)
        bits = self._bits.view(np.uint8)
        mask: Mask = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        metrics.MASK_SECONDS.inc(time.perf_counter() - started)
        return mask

    def consume(self, token_id: int) -> None:
        if token_id in self._ends and self._grammar.is_accepting():
            return
        if not self._grammar.consume_token(token_id):
            raise _dead_end(self._grammar)

    def forced(self) -> list[int]:
        return self._grammar.compute_ff_tokens()

    def fork(self) -> GrammarMatcher:
        return GrammarMatcher(self._grammar.deep_copy(), self._ends, self._size)


class LaterMatcher:
    """Leaves the answer free until `after` has been written, and then is as strict as `strict`.

    An answer can't end before that. `spellings` are the bytes of each token, control tokens
    included. The white space that models like to put behind a thought is nobody's.
    """

    def __init__(
        self, strict: Matcher, after: bytes, spellings: Spellings, ends: frozenset[int]
    ) -> None:
        self._strict = strict
        self._after = after
        self._spellings = spellings
        self._ends = ends
        self._tail = b""
        # Bytes of white space that may yet come; none once the strict part has begun.
        self._gap = _MAX_GAP
        self._is_strict = False

    def validate(self, token_id: int) -> bool:
        if self._is_strict:
            return self._strict.validate(token_id) or self._is_gap(token_id)
        rest = self._behind(self._tail + self._spellings.of(token_id))
        return token_id not in self._ends and (rest is None or not rest.strip())

    def allowed(self) -> Mask:
        if self._is_strict:
            return self._strict.allowed()
        mask: Mask = np.ones(len(self._spellings), np.bool_)
        mask[list(self._ends)] = False
        for token_id in self._spellings.holding(self._after[-1:]):
            if not self.validate(token_id):
                mask[token_id] = False
        return mask

    def consume(self, token_id: int) -> None:
        if not self._is_strict:
            text = self._tail + self._spellings.of(token_id)
            self._is_strict = self._behind(text) is not None
            self._tail = text[-len(self._after) :]
        elif self._is_gap(token_id) and not self._strict.validate(token_id):
            self._gap -= len(self._spellings.of(token_id))
        else:
            self._gap = 0
            self._strict.consume(token_id)

    def forced(self) -> list[int]:
        return self._strict.forced() if self._is_strict else []

    def fork(self) -> LaterMatcher:
        copy = LaterMatcher(self._strict.fork(), self._after, self._spellings, self._ends)
        copy._tail, copy._gap, copy._is_strict = self._tail, self._gap, self._is_strict
        return copy

    def _is_gap(self, token_id: int) -> bool:
        text = self._spellings.of(token_id)
        return 0 < len(text) <= self._gap and text.isspace()

    def _behind(self, text: bytes) -> bytes | None:
        """What follows the first `after` in `text`; None where there is none yet."""
        _, found, rest = text.partition(self._after)
        return rest if found else None


def _dead_end(grammar: LLMatcher) -> DeadEnd:
    reason = grammar.get_error().split("\n", 1)[0]
    return DeadEnd(f"the constraint can't be followed any further: {reason}")
