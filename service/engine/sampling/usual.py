"""The quick way for the options that nearly all requests have.

A few dozen candidates are looked at in plain Python, which is done with them, most often after the
first, before an array would have been made. What is chosen is what the general way chooses.
"""

from __future__ import annotations

import math

import numpy as np

from service.domain.sampling import Sampling
from service.engine.runner import RunnerError
from service.engine.sampling.candidates import (
    Ids,
    Row,
    at_least_top,
    bound_below,
    near,
)
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


def choose_usual(logits: Row, sampling: Sampling, draw: float) -> int | None:
    """The token that `draw` selects; None where this way would not be quicker, or not exact."""
    if sampling.top_k > 0:
        if sampling.top_k > MANY:
            return None
        return _among(logits, at_least_top(logits, sampling.top_k), sampling, draw)
    if sampling.top_p < 1.0:
        best, ids = near(logits, DEPTH)
        others = bound_below(logits, best, DEPTH, 1.0)
        return _among(logits, ids, sampling, draw, others)
    if sampling.min_p > 0.0:
        _, ids = near(logits, -math.log(sampling.min_p))
        return _among(logits, ids, sampling, draw)
    return from_row(logits, max(sampling.temperature, COLDEST), draw)


def _among(
    logits: Row, ids: Ids, sampling: Sampling, draw: float, others: float = 0.0
) -> int | None:
    """Among `ids`, beside which others count that weigh `others` together at most, the best token
    weighing 1."""
    if ids.size > MANY:
        return None
    below = -logits[ids]
    order = below.argsort(kind="stable")
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    below = below[order]
    if not below.size or not math.isfinite(below[0]):
        raise RunnerError("the model's logits are not numbers")
    weights: list[float] = np.exp(below[0] - below).tolist()
    if sampling.top_p < 1.0:
        count = _nucleus(weights, sampling.top_p, others)
        if count is None:
            return None
        del weights[count:]
    if sampling.min_p > 0.0:
        floor = sampling.min_p * (1.0 - 1e-7)
        while weights[-1] < floor:
            weights.pop()
    temperature = max(sampling.temperature, COLDEST)
    if temperature != 1.0:
        power = 1 / temperature
        weights = [weight**power for weight in weights]
    return int(ids[order[first_beyond(weights, draw * sum(weights))]])


def _nucleus(weights: list[float], share: float, others: float) -> int | None:
    """How many of the weights, the greatest first, make `share` of all; None where that hangs on
    what exactly the others weigh."""
    total = sum(weights)
    held = 0.0
    for count, weight in enumerate(weights, 1):
        held += weight
        if held >= share * total:
            return count if held >= share * (total + others) else None
    return None if others else len(weights)
