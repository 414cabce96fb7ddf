"""The likeliest tokens of a row of logits, found in one pass over it.

In a large vocabulary the row is looked at as a table of 64 lines: the best of each column say in
which columns the likeliest tokens are, and only those are looked at again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.engine.runner import RunnerError

Row = NDArray[np.float32]
Ids = NDArray[np.intp]

# Vocabularies up to this size are looked at whole where that is as fast.
SMALL = 8192

_LINES = 64


def best_of(logits: Row) -> np.float32:
    """The highest logit. Raises `RunnerError` for a row that is not made of numbers."""
    best: np.float32 = logits[logits.argmax()]  # three times as fast as max()
    if not math.isfinite(best):
        raise RunnerError(f"the model's logits are not numbers (their maximum is {best})")
    return best


def at_least(logits: Row, threshold: np.float32) -> Ids:
    """The ids of tokens whose logit is `threshold` or more, in ascending order."""
    if logits.size <= SMALL:
        ids: Ids = (logits >= threshold).nonzero()[0]
        return ids
    table = _table(logits, _LINES)
    return _from_table(logits, table, table.max(axis=0), threshold)


def at_least_top(logits: Row, count: int) -> Ids:
    """The ids of the `count` likeliest tokens and of few others, in ascending order; of those that
    can come, where these are fewer. Raises `RunnerError` like `best_of`."""
    size = logits.size
    if count >= size:
        best_of(logits)
        return np.arange(size)
    small = size <= SMALL
    table, columns, _ = _columns(logits, 32 if small else _LINES)
    cut = columns.size - count
    if cut > count:
        # Each column whose best is among the `count` best columns holds one token at least.
        threshold = np.partition(columns, cut)[cut]
    else:
        threshold = np.partition(logits, size - count)[size - count]
    if threshold == -np.inf:  # a constraint left fewer; no need to look at what can't come
        possible: Ids = (logits > -np.inf).nonzero()[0]
        return possible
    if small:
        ids: Ids = (logits >= threshold).nonzero()[0]
        return ids
    return _from_table(logits, table, columns, threshold)


def near(logits: Row, depth: float) -> tuple[np.float32, Ids]:
    """The highest logit, and the ids of tokens at most `depth` below it, in ascending order.
    Raises `RunnerError` like `best_of`."""
    if logits.size <= SMALL:
        best = best_of(logits)
        return best, at_least(logits, best - np.float32(depth))
    table, columns, best = _columns(logits, _LINES)
    return best, _from_table(logits, table, columns, best - np.float32(depth))


def above(logits: Row, best: np.float32, depth: float) -> tuple[Ids, Row]:
    """The tokens at most `depth` below the best one, best first, and how far below they are."""
    return _ranked(logits, best, at_least(logits, best - np.float32(depth)))


def top(logits: Row, best: np.float32, count: int) -> tuple[Ids, Row]:
    """The `count` likeliest tokens, best first, of equal ones the first, and how far below the
    best one they are."""
    ids, values = _ranked(logits, best, at_least_top(logits, count))
    return ids[:count], values[:count]


def everything(logits: Row, best: np.float32) -> tuple[Ids, Row]:
    """All tokens, best first, and how far below the best one they are. Slow: milliseconds."""
    return _ranked(logits, best, np.arange(logits.size))


def weights_of(logits: Row, best: np.float32, temperature: float = 1.0) -> Row:
    """Unnormalised probabilities of the whole row, the best token's being 1."""
    weights = logits - best
    if temperature != 1.0:
        weights *= np.float32(1 / temperature)
    np.exp(weights, out=weights)
    return weights


def mass_of(weights: Row) -> float:
    """The sum of weights; as a product, which is four times as fast as `sum` and as exact."""
    size = weights.size // _LINES * _LINES
    sums = weights[:size].reshape(-1, _LINES) @ np.ones(_LINES, np.float32)
    return float(sums.sum(dtype=np.float64)) + float(weights[size:].sum())


def _columns(logits: Row, lines: int) -> tuple[Row, Row, np.float32]:
    """The row, but for its last few, as a table; the best of each column, and the best of all.
    Raises `RunnerError` like `best_of`."""
    table = _table(logits, lines)
    columns = table.max(axis=0)
    rest = logits[table.size :]
    return table, columns, best_of(np.append(columns, rest) if rest.size else columns)


def _table(logits: Row, lines: int) -> Row:
    width = logits.size // lines
    table: Row = logits[: width * lines].reshape(lines, width) if width else logits.reshape(1, -1)
    return table


def _from_table(logits: Row, table: Row, columns: Row, threshold: np.float32) -> Ids:
    places: Ids = (columns >= threshold).nonzero()[0]
    if places.size * 4 > columns.size:
        everywhere: Ids = (logits >= threshold).nonzero()[0]
        return everywhere
    found = (table.take(places, axis=1) >= threshold).ravel().nonzero()[0]
    lines, column = np.divmod(found, places.size)
    ids: Ids = lines * columns.size + places[column]
    rest: Ids = (logits[table.size :] >= threshold).nonzero()[0]
    return np.concatenate((ids, rest + table.size)) if rest.size else ids


def _ranked(logits: Row, best: np.float32, ids: Ids) -> tuple[Ids, Row]:
    below = best - logits[ids]
    # Of many, equal ones are in no order; sorting them is four times as fast.
    order = below.argsort(kind="stable" if ids.size <= SMALL else None)
    return ids[order], -below[order]
