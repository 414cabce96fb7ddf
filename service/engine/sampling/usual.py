"""The quick way for the options that nearly all requests have.

A few dozen candidates are looked at in plain Python, which is done with them, most often after the
first, before an array would have been made. What is kept, and how likely it is, is what the general
way comes to.
"""

from __future__ import annotations

import math

import numpy as np

from service.domain.sampling import Sampling
from service.engine.sampling.candidates import (
    Ids,
    Row,
    at_least_top,
    best_of,
    mass_of,
    near,
    weights_of,
)
from service.engine.sampling.draw import COLDEST, first_beyond, from_row, from_weights
from service.engine.sampling.nucleus import nucleus, thinned

# More candidates than this are looked at as arrays.
MANY = 512

# So many tokens nearly always hold what top-p asks for.
_NUCLEUS = 64


def is_usual(sampling: Sampling) -> bool:
    """Whether nothing but top-k, top-p, min-p and a temperature above 0 is asked for."""
    return (
        sampling.typical_p == 1.0
        and sampling.top_n_sigma <= 0.0
        and sampling.xtc_probability == 0.0
        and sampling.dynatemp_range == 0.0
        and sampling.temperature > 0.0
        and sampling.top_k <= MANY
    )


class UsualChoice:
    """The choices with usual options. `choose` raises `RunnerError` for a row that is not made of
    numbers."""

    def __init__(self, sampling: Sampling) -> None:
        self._top_k = sampling.top_k
        self._top_p = sampling.top_p
        self._min_p = sampling.min_p
        self._temperature = max(sampling.temperature, COLDEST)

    def choose(self, logits: Row, draw: float) -> int:
        """The token that `draw` selects."""
        if self._top_k > 0:
            return self._of_top(logits, draw)
        if self._top_p < 1.0:
            return self._of_nucleus(logits, draw)
        if self._min_p > 0.0:
            best, ids = near(logits, -math.log(self._min_p))
            if ids.size > MANY:
                return self._of_many(logits, best, ids, draw)
            return self._of_few(*_ranked(logits, ids, MANY), draw)
        return from_row(logits, self._temperature, draw)

    def _of_top(self, logits: Row, draw: float) -> int:
        ids, weights = _ranked(logits, at_least_top(logits, self._top_k), self._top_k)
        return self._of_few(ids, weights[: self._count(weights, sum(weights))], draw)

    def _of_nucleus(self, logits: Row, draw: float) -> int:
        best = best_of(logits)
        row = weights_of(logits, best)
        total = mass_of(row)
        # None weighs more than 1, so that where more is asked for so few can't hold it.
        if self._top_p * total <= _NUCLEUS or self._min_p > 0.0:
            ids, weights = _ranked(logits, at_least_top(logits, _NUCLEUS), _NUCLEUS)
            count = self._count(weights, total)
            if count < len(weights):
                return self._of_few(ids, weights[:count], draw)
        kept = nucleus(row, self._top_p, total)
        if kept is not None:
            return self._of_many(logits, best, kept[row[kept] >= self._min_p], draw)
        left = thinned(row, self._top_p, total)
        if self._min_p > 0.0:
            left *= row >= self._min_p
        if self._temperature != 1.0:
            left = weights_of(logits, best, self._temperature) * (left > 0)
        return from_weights(left, draw)

    def _count(self, weights: list[float], total: float) -> int:
        """How many of the weights, the greatest first, are kept; of all tokens' `total`."""
        floor = self._min_p * (1.0 - 1e-7)
        target = self._top_p * total if self._top_p < 1.0 else math.inf
        held = 0.0
        for count, weight in enumerate(weights):
            if weight < floor:
                return count
            held += weight
            if held >= target:
                return count + 1
        return len(weights)

    def _of_few(self, ids: Ids, weights: list[float], draw: float) -> int:
        if self._temperature != 1.0:
            power = 1 / self._temperature
            weights = [weight**power for weight in weights]
        return int(ids[first_beyond(weights, draw * sum(weights))])

    def _of_many(self, logits: Row, best: np.float32, ids: Ids, draw: float) -> int:
        return int(ids[from_weights(weights_of(logits[ids], best, self._temperature), draw)])


def _ranked(logits: Row, ids: Ids, count: int) -> tuple[Ids, list[float]]:
    """The first `count` of `ids`, best first, and their weights, the best one's being 1."""
    values = logits[ids]
    order = (-values).argsort(kind="stable")[:count]
    ranked = values[order]
    return ids[order], np.exp(ranked - ranked[0]).tolist()
