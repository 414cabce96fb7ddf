"""From weights and a number that was drawn to a token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling.candidates import (
    SMALL,
    Ids,
    Row,
    above,
    bound_below,
    mass_of,
    weights_of,
)

Mass = NDArray[np.float32] | NDArray[np.float64]

# Colder than this is as good as greedy, and single precision would overflow.
COLDEST = 1e-4

# A token this far below the best one, in units of the temperature, seldom matters.
DEPTH = 12.0

_BLOCK = 64
_ONES = np.ones(_BLOCK, np.float32)


def from_row(logits: Row, best: np.float32, temperature: float, draw: float) -> int:
    """The token that `draw`, uniform in [0, 1), selects from the whole row.

    In large vocabularies the likeliest tokens come first, best first. The answer is the one that
    looking at all would give; all are looked at only where that could be another.
    """
    if logits.size <= SMALL:
        return from_weights(weights_of(logits, best, temperature), draw)
    ids, values = above(logits, best, DEPTH * temperature)
    mass = cumulated(np.exp(values / np.float32(temperature)))
    found = float(mass[-1])
    bound = bound_below(logits, best, DEPTH * temperature, temperature)
    place = int(mass.searchsorted(draw * found, side="right"))
    if place < ids.size and draw * (found + bound) < mass[place]:
        return int(ids[place])
    weights = weights_of(logits, best, temperature)
    weights[ids] = 0.0
    others = mass_of(weights)
    target = draw * (found + others)
    if target < found or not others:
        return int(ids[place_in(mass, target / found)])
    return from_weights(weights, (target - found) / others)


def from_weights(weights: Row, draw: float) -> int:
    """The place that `draw` selects from all weights: first a block, then a place in it.

    Summing blocks by a matrix product is ten times as fast as cumulating a whole row.
    """
    num_blocks = weights.size // _BLOCK
    if num_blocks < 2:
        return place_in(cumulated(weights), draw)
    head = num_blocks * _BLOCK
    sums = weights[:head].reshape(num_blocks, _BLOCK) @ _ONES
    if head < weights.size:
        sums = np.append(sums, weights[head:].sum())
    mass = sums.cumsum(dtype=np.float64)
    block = place_in(mass, draw)
    inside = (draw * mass[-1] - (mass[block] - sums[block])) / sums[block]
    start = block * _BLOCK
    return start + place_in(weights[start : start + _BLOCK].cumsum(), max(0.0, inside))


def cumulated(weights: Row) -> Mass:
    """Running sums, in double precision where single would round away what many hold."""
    mass: Mass = weights.cumsum(dtype=np.float64 if weights.size > 4096 else np.float32)
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
