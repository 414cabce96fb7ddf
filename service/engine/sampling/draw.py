"""From weights and a number that was drawn to a token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling.candidates import Ids, Row, best_of, weights_of

Mass = NDArray[np.float64]

# Colder than this is as good as greedy, and single precision would overflow.
COLDEST = 1e-4

# A token this far below the best one, in units of the temperature, seldom matters.
DEPTH = 12.0

# Usual logits, divided by less than this, are beyond what single precision has powers for.
_COOL = 0.5

# Where all weights together are less, single precision may have lost some that count.
_LEAST = 1e-20

_BLOCK = 64
_ONES = np.ones(_BLOCK, np.float32)


def from_row(logits: Row, temperature: float, draw: float) -> int:
    """The token that `draw`, uniform in [0, 1), selects from the whole row. Raises `RunnerError`
    for a row that is not made of numbers.

    Powers are taken of the logits as they are, which saves looking for the best one first; only
    where single precision can't hold them is that one taken off.
    """
    if temperature >= _COOL:
        with np.errstate(over="ignore"):
            scaled = logits if temperature == 1.0 else logits * np.float32(1 / temperature)
            weights = np.exp(scaled, out=None if scaled is logits else scaled)
            mass = _mass_of_blocks(weights)
        if _LEAST < mass[-1] < math.inf:
            return _within(weights, mass, draw)
    return from_weights(weights_of(logits, best_of(logits), temperature), draw)


def from_weights(weights: Row, draw: float) -> int:
    """The place that `draw` selects from all weights."""
    return _within(weights, _mass_of_blocks(weights), draw)


def _mass_of_blocks(weights: Row) -> Mass:
    """Running sums of blocks of weights. Summing them by a matrix product is ten times as fast as
    cumulating a whole row."""
    head = weights.size // _BLOCK * _BLOCK
    blocks = weights[:head].reshape(-1, _BLOCK) @ _ONES
    if head < weights.size:
        blocks = np.append(blocks, weights[head:].sum())
    return cumulated(blocks)


def _within(weights: Row, mass: Mass, draw: float) -> int:
    """First a block, by the running sums of all, then a place in it."""
    block = place_in(mass, draw)
    start = block * _BLOCK
    inside = draw * float(mass[-1]) - (float(mass[block - 1]) if block else 0.0)
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
