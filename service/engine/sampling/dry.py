"""DRY ("don't repeat yourself"): makes tokens less likely that would go on with a repetition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain.sampling import Sampling
from service.engine.sampling.candidates import Ids, Row

Breakers = Mapping[int, Sequence[tuple[int, ...]]]
"""Where a repetition is cut: a breaker's first token, and what has to follow it (in full)."""

LONGEST_TAIL = 20
"""How many tokens of a breaker count behind its first; llama.cpp's limit."""

# ln of the largest float32: higher powers would overflow.
_MAX_LOG = 88.7228391


class Dry:
    """Makes tokens less likely that would go on repeating what stands further up.

    `lengths[i]` is how many tokens before and with the one at `i` are those at the end of the
    text; each new token makes all of them from those before, so that no repetition is walked
    twice.
    """

    def __init__(self, sampling: Sampling, breakers: Breakers, tail: Sequence[int]) -> None:
        self._multiplier = sampling.dry_multiplier
        self._base = sampling.dry_base
        self._allowed = sampling.dry_allowed_length
        self._window = None if sampling.dry_penalty_last_n < 0 else sampling.dry_penalty_last_n
        self._breakers = breakers
        kept = list(tail if self._window is None else tail[-self._window :])
        self._num = self._num_unscanned = 0
        self._breaker_back: int | None = None
        self._breaker_tail = 0
        self._tokens: NDArray[np.int32] = np.empty(max(256, 2 * len(kept)), np.int32)
        self._lengths: NDArray[np.int32] = np.zeros(self._tokens.size, np.int32)
        self._read(kept)

    @classmethod
    def of(cls, sampling: Sampling, breakers: Breakers, tail: Sequence[int]) -> Dry | None:
        """None where the options ask for nothing."""
        if not wants_dry(sampling):
            return None
        return cls(sampling, breakers, tail)

    def accept(self, token_id: int) -> None:
        self._make_room()
        num = self._num
        same = self._tokens[:num] == token_id
        lengths = self._lengths
        lengths[1:num] = lengths[: max(0, num - 1)] + 1
        lengths[: min(1, num)] = 1
        lengths[:num] *= same
        self._tokens[num], lengths[num] = token_id, 0
        self._num = num + 1
        self._num_unscanned += 1
        if self._breaker_back is not None:
            self._breaker_back += 1

    def penalties(self) -> tuple[Ids, Row] | None:
        """Tokens, and what is to be taken off their logits; None where nothing is."""
        reach = self._num if self._window is None else min(self._num, self._window)
        limit = self._until_breaker(reach)
        if reach <= self._allowed or limit < self._allowed:
            return None
        start = self._num - reach
        # A repetition begins within the window and does not reach across a breaker.
        lengths = np.minimum(self._lengths[start : self._num - 1], np.arange(1, reach))
        np.minimum(lengths, limit, out=lengths)
        places = (lengths >= self._allowed).nonzero()[0]
        if not places.size:
            return None
        longest: dict[int, int] = {}
        followers = self._tokens[start + 1 : self._num][places]
        for token_id, length in zip(followers.tolist(), lengths[places].tolist(), strict=True):
            if () not in self._breakers.get(token_id, ()):
                longest[token_id] = max(length, longest.get(token_id, 0))
        ids = np.fromiter(longest.keys(), np.intp, len(longest))
        return ids, self._weigh(np.fromiter(longest.values(), np.float64, len(longest)))

    def _weigh(self, lengths: NDArray[np.float64]) -> Row:
        powers = lengths - self._allowed
        if self._base > 1.000001:
            powers = np.minimum(powers, int(_MAX_LOG / math.log(self._base)))
        penalties: Row = (self._multiplier * self._base**powers).astype(np.float32)
        return penalties

    def _until_breaker(self, reach: int) -> int:
        """How many tokens stand behind the nearest breaker, in the last `reach`; `reach` without
        one. Only what is new since the last call is looked at, and what a new token can end."""
        newest = min(reach, self._num_unscanned + LONGEST_TAIL + 1)
        self._num_unscanned = 0
        tokens = self._tokens[self._num - newest : self._num][::-1].tolist()
        for back, token_id in enumerate(tokens):
            tails = self._breakers.get(token_id)
            if tails is None:
                continue
            behind = tuple(tokens[max(0, back - LONGEST_TAIL) : back][::-1])
            matches = [len(tail) for tail in tails if behind[: len(tail)] == tail]
            if matches:
                self._breaker_back, self._breaker_tail = back, max(matches)
                break
        if self._breaker_back is None or self._breaker_back >= reach:
            return reach
        return self._breaker_back - self._breaker_tail

    def _read(self, tokens: Sequence[int]) -> None:
        """What `accept` of each would come to, in one pass."""
        self._num = self._num_unscanned = len(tokens)
        self._tokens[: self._num] = tokens
        backwards = list(reversed(tokens))
        self._lengths[: self._num] = list(reversed(_prefix_lengths(backwards)))

    def _make_room(self) -> None:
        if self._num < self._tokens.size:
            return
        keep = self._num if self._window is None else min(self._num, self._window)
        first = self._num - keep
        for name in ("_tokens", "_lengths"):
            held = getattr(self, name)
            larger = np.zeros(max(256, 2 * keep), np.int32)
            larger[:keep] = held[first : self._num]
            setattr(self, name, larger)
        self._num = keep


def wants_dry(sampling: Sampling) -> bool:
    return (
        sampling.dry_multiplier != 0.0
        and sampling.dry_base >= 1.0
        and sampling.dry_penalty_last_n != 0
    )


def _prefix_lengths(tokens: Sequence[int]) -> list[int]:
    """For each place but the first (0 there), how many tokens from it on are those from the
    beginning on. Linear: what is known of a stretch that was seen before is not looked at again.
    """
    lengths = [0] * len(tokens)
    start = stop = 0
    for place in range(1, len(tokens)):
        length = min(lengths[place - start], stop - place) if place < stop else 0
        while place + length < len(tokens) and tokens[length] == tokens[place + length]:
            length += 1
        lengths[place] = length
        if place + length > stop:
            start, stop = place, place + length
    return lengths


def find_breakers(
    texts: Iterable[bytes], pieces: Sequence[bytes], tokenize: Callable[[bytes], Sequence[int]]
) -> Breakers:
    """The breakers of `texts`: tokens that hold one, and tokens that end with the beginning of
    one, followed by the tokens of its rest."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for text in texts:
        for token_id, tail in _heads(text, pieces, tokenize):
            tails = found.setdefault(token_id, [])
            if tail not in tails:
                tails.append(tail)
    return found


def _heads(
    text: bytes, pieces: Sequence[bytes], tokenize: Callable[[bytes], Sequence[int]]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    first = text[:1]
    rests = {n: tuple(tokenize(text[n:]))[:LONGEST_TAIL] for n in range(1, len(text))}
    for token_id in [i for i, piece in enumerate(pieces) if first in piece]:
        piece = pieces[token_id]
        if text in piece:
            yield token_id, ()
        else:
            yield from ((token_id, rests[n]) for n in rests if piece.endswith(text[:n]))
