"""From weights and a number that was drawn to a token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling.candidates import (
    Ids,
    Row,
    bound_below,
    mass_of,
    near,
    weights_of,
)

Mass = NDArray[np.float64]

# Colder than this is as good as greedy, and single precision would overflow.
COLDEST = 1e-4

# A token this far below the best one, in units of the temperature, seldom matters.
DEPTH = 12.0

# More candidates than this are looked at as arrays.
MANY = 512

_BLOCK = 64
_ONES = np.ones(_BLOCK, np.float32)


def from_row(logits: Row, temperature: float, draw: float) -> int:
    """The token that `draw`, uniform in [0, 1), selects from the whole row.

    The likeliest tokens come first. The answer is the one that looking at all would give; all are
    looked at only where that could be another.
    """
    depth = DEPTH * temperature
    best, ids = near(logits, depth)
    weights = np.exp((logits[ids] - best) * np.float32(1 / temperature))
    if ids.size <= MANY:
        held = weights.tolist()
        found = sum(held)
        place = first_beyond(held, draw * found)
        mass = sum(held[: place + 1])
    else:
        sums = cumulated(weights)
        found = float(sums[-1])
        place = place_in(sums, draw)
        mass = float(sums[place])
    if draw * (found + bound_below(logits, best, depth, temperature)) < mass:
        return int(ids[place])
    others = weights_of(logits, best, temperature)
    others[ids] = 0.0
    rest = mass_of(others)
    target = draw * (found + rest)
    if target < found or not rest:
        return int(ids[place_in(cumulated(weights), target / found)])
    return from_weights(others, (target - found) / rest)


def from_weights(weights: Row, draw: float) -> int:
    """The place that `draw` selects from all weights: first a block, then a place in it.

    Summing blocks by a matrix product is ten times as fast as cumulating a whole row.
    """
    num_blocks = weights.size // _BLOCK
    if num_blocks < 2:
        return place_in(cumulated(weights), draw)
    head = num_blocks * _BLOCK
    blocks = (weights[:head].reshape(num_blocks, _BLOCK) @ _ONES).tolist()
    if head < weights.size:
        blocks.append(float(weights[head:].sum()))
    target = draw * sum(blocks)
    block = first_beyond(blocks, target)
    start = block * _BLOCK
    inside = max(0.0, target - sum(blocks[:block]))
    return start + first_beyond(weights[start : start + _BLOCK].tolist(), inside)


def first_beyond(weights: Sequence[float], target: float) -> int:
    """The first place up to which weights are more than `target`; never one that weighs nothing.

    In plain Python: for so few, and mostly ended early, that is quicker than an array.
    """
    last = 0
    for place, weight in enumerate(weights):
        if weight:
            target -= weight
            if target < 0.0:
                return place
            last = place
    return last


def cumulated(weights: Row) -> Mass:
    """Running sums, in double precision: single would round away what many hold."""
    mass: Mass = weights.cumsum(dtype=np.float64)
    return mass


def place_in(mass: Mass, draw: float) -> int:
    """Where `draw`, a share, falls in cumulated mass; never on a place that holds nothing."""
    total = float(mass[-1])
    place = int(mass.searchsorted(draw * total, side="right"))
    return place if place < mass.size else int(mass.searchsorted(total))


def from_ranked(ids: Ids, values: Row, temperature: float, draw: float) -> int:
    """The token that `draw` selects from `ids`, whose logits are `values`, the best being 0."""
    if temperature != 1.0:
        values = values * np.float32(1 / temperature)
    return int(ids[place_in(cumulated(np.exp(values)), draw)])
