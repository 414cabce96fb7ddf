"""The quick way for the options that nearly all requests have.

A few dozen candidates are looked at in plain Python, which is done with them, most often after the
first, before an array would have been made. What is chosen is what the general way chooses.
"""

from __future__ import annotations

import math

import numpy as np

from service.domain.sampling import Sampling
from service.engine.runner import RunnerError
from service.engine.sampling.candidates import Ids, Row, at_least_top, bound_below, near
from service.engine.sampling.draw import COLDEST, DEPTH, MANY, first_beyond, from_row


def is_usual(sampling: Sampling) -> bool:
    """Whether nothing but top-k, top-p, min-p and a temperature above 0 is asked for."""
    return (
        sampling.typical_p == 1.0
        and sampling.top_n_sigma <= 0.0
        and sampling.xtc_probability == 0.0
        and sampling.dynatemp_range == 0.0
        and sampling.temperature > 0.0
    )


class UsualChoice:
    """The choices with usual options."""

    def __init__(self, sampling: Sampling) -> None:
        self._top_k = sampling.top_k
        self._top_p = sampling.top_p
        self._min_p = sampling.min_p
        self._min_p_depth = -math.log(sampling.min_p) if sampling.min_p > 0.0 else math.inf
        self._temperature = max(sampling.temperature, COLDEST)

    def choose(self, logits: Row, draw: float) -> int | None:
        """The token that `draw` selects; None where this way would not be quicker, or not exact."""
        if self._top_k > 0:
            if self._top_k > MANY:
                return None
            return self._among(logits, at_least_top(logits, self._top_k), draw)
        if self._top_p < 1.0:
            best, ids = near(logits, DEPTH)
            return self._among(logits, ids, draw, bound_below(logits, best, DEPTH, 1.0))
        if self._min_p > 0.0:
            _, ids = near(logits, self._min_p_depth)
            return self._among(logits, ids, draw)
        return from_row(logits, self._temperature, draw)

    def _among(self, logits: Row, ids: Ids, draw: float, others: float = 0.0) -> int | None:
        """Among `ids`, beside which others count that weigh `others` together at most, the best
        token weighing 1."""
        if ids.size > MANY:
            return None
        below = -logits[ids]
        order = below.argsort(kind="stable")
        if self._top_k > 0:
            order = order[: self._top_k]
        below = below[order]
        if not below.size or not math.isfinite(below[0]):
            raise RunnerError("the model's logits are not numbers")
        below -= below[0]
        weights: list[float] = np.exp(-below).tolist()
        count = self._count(weights, others)
        if count is None:
            return None
        del weights[count:]
        if self._temperature != 1.0:
            power = 1 / self._temperature
            weights = [weight**power for weight in weights]
        return int(ids[order[first_beyond(weights, draw * sum(weights))]])

    def _count(self, weights: list[float], others: float) -> int | None:
        """How many of the weights, the greatest first, stay; None where that hangs on what exactly
        the others weigh."""
        floor = self._min_p * (1.0 - 1e-7)
        if self._top_p >= 1.0:
            count = len(weights)
            while weights[count - 1] < floor:
                count -= 1
            return count
        total = sum(weights)
        target = self._top_p * total
        held = 0.0
        for count, weight in enumerate(weights):
            if weight < floor:
                return count
            held += weight
            if held >= target:
                return count + 1 if held >= self._top_p * (total + others) else None
        return None if others else len(weights)
