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
from service.engine.sampling.draw import COLDEST, cumulated, first_beyond, from_row, from_weights

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
        ids, weights = _ranked(logits, at_least_top(logits, _NUCLEUS), _NUCLEUS)
        count = self._count(weights, total)
        if count < len(weights):
            return self._of_few(ids, weights[:count], draw)
        ids = _nucleus(row, self._top_p, total)
        return self._of_many(logits, best, ids[row[ids] >= self._min_p], draw)

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


def _nucleus(weights: Row, share: float, total: float) -> Ids:
    """The fewest tokens that hold `share` of the `total`, by id; of equal ones the first."""
    # What all that are lighter hold together is beyond the share.
    least = np.float32((1.0 - share) * total / weights.size)
    ranked = np.sort(weights[weights >= least])[::-1]
    count = int(cumulated(ranked).searchsorted(share * total)) + 1
    if count > ranked.size:
        return weights.nonzero()[0]
    ids: Ids = (weights >= ranked[count - 1]).nonzero()[0]
    too_many = ids.size - count
    if not too_many:
        return ids
    last = (weights[ids] == ranked[count - 1]).nonzero()[0][-too_many:]
    return np.delete(ids, last)
