"""What the truncating samplers leave, in llama.cpp's order and after its definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.domain.sampling import Sampling
from service.engine.sampling.candidates import (
    Ids,
    Row,
    above,
    best_of,
    everything,
    mass_of,
    top,
    weights_of,
)
from service.engine.sampling.draw import COLDEST, DEPTH, from_ranked, from_weights
from service.engine.sampling.usual import UsualChoice, is_usual


class _TooShallow(Exception):
    """The outcome depends on tokens that were not taken out of the row."""


def choose(logits: Row, sampling: Sampling, random: Callable[[], float]) -> int:
    """A token of the row. `random` yields numbers in [0, 1)."""
    return chooser(sampling, random)(logits)


def chooser(sampling: Sampling, random: Callable[[], float]) -> Callable[[Row], int]:
    """`choose` for one row after the other."""
    if not is_usual(sampling):
        return partial(_choose_any, sampling=sampling, random=random)
    usual = UsualChoice(sampling)
    return lambda logits: usual.choose(logits, random())


def _choose_any(logits: Row, sampling: Sampling, random: Callable[[], float]) -> int:
    best = best_of(logits)
    chance = random() if sampling.xtc_probability > 0.0 else math.inf
    try:
        pool = _stages(_likeliest(logits, best, sampling), sampling, chance)
    except _TooShallow:
        whole = _of(logits, best, *everything(logits, best))
        pool = _stages(whole, sampling, chance)
    temperature = _temperature(pool, sampling)
    if temperature <= COLDEST:
        return int(pool.ids[0])
    if not pool.others:
        return from_ranked(pool.ids, pool.values, temperature, random())
    weights = weights_of(logits, best, temperature)
    if pool.dropped is not None:
        weights[pool.dropped] = 0.0
    return from_weights(weights, random())


@dataclass(slots=True)
class _Pool:
    """The tokens that are left: `ids`, best first, with their logits below the row's best.

    All tokens at least as likely as the last of `ids` are among them. `others`, which are not,
    weigh that much together (the best token of the row weighing 1), `others_log` is the sum of
    their weights times the logarithms of those. llama.cpp would have `size` tokens left.
    """

    ids: Ids
    values: Row
    size: int
    others: float = 0.0
    others_log: float = 0.0
    dropped: Ids | None = None

    def cut(self, count: int) -> None:
        """Only the first `count` stay."""
        self.ids, self.values = self.ids[:count], self.values[:count]
        self.size, self.others, self.others_log = count, 0.0, 0.0

    def entropy(self) -> tuple[float, float]:
        """Of the distribution, in nats, and the mass that it has."""
        weights = np.exp(self.values).astype(np.float64)
        mass = float(weights.sum()) + self.others
        logs = float(weights @ self.values) + self.others_log
        return math.log(mass) - logs / mass, mass


def _likeliest(logits: Row, best: np.float32, sampling: Sampling) -> _Pool:
    """As much of the row as the stages are likely to need."""
    if sampling.top_n_sigma > 0.0:
        deviation = float(logits[np.isfinite(logits)].std(dtype=np.float64))
        ids, values = above(logits, best, sampling.top_n_sigma * deviation)
        # llama.cpp leaves the others in place, as impossible ones.
        return _Pool(ids, values, logits.size)
    if sampling.top_k > 0:
        ids, values = top(logits, best, sampling.top_k)
        return _Pool(ids, values, ids.size)
    return _of(logits, best, *above(logits, best, DEPTH))


def _of(logits: Row, best: np.float32, ids: Ids, values: Row) -> _Pool:
    pool = _Pool(ids, values, logits.size)
    if ids.size < logits.size:
        below = np.maximum(logits - best, np.float32(-100.0))
        weights = np.exp(below)
        weights[ids] = 0.0
        pool.others, pool.others_log = mass_of(weights), float(weights @ below)
    return pool


def _stages(pool: _Pool, sampling: Sampling, chance: float) -> _Pool:
    """Truncate a pool. Raises `_TooShallow` where it does not reach far enough."""
    if 0 < sampling.top_k < pool.size:
        pool.cut(min(sampling.top_k, pool.ids.size))
        pool.size = sampling.top_k
    if sampling.typical_p < 1.0:
        _cut_typical(pool, sampling.typical_p)
    if sampling.top_p < 1.0:
        _cut_nucleus(pool, sampling.top_p)
    if sampling.min_p > 0.0:
        _cut_unlikely(pool, sampling.min_p)
    if chance <= sampling.xtc_probability and sampling.xtc_threshold <= 0.5:
        _drop_top_choices(pool, sampling.xtc_threshold)
    return pool


def _cut_typical(pool: _Pool, share: float) -> None:
    """Keep the tokens whose surprise is closest to the expected one, until they hold `share`."""
    entropy, mass = pool.entropy()
    surprise = math.log(mass) - pool.values.astype(np.float64)
    distance = np.abs(surprise - entropy)
    order = distance.argsort(kind="stable")
    held = np.exp(-surprise[order]).cumsum()
    count = int(held.searchsorted(share, side="right")) + 1
    if pool.others:
        reach = float(surprise[-1]) - entropy
        if count > order.size or float(distance[order[count - 1]]) > reach:
            raise _TooShallow
    kept = np.sort(order[:count])
    pool.ids, pool.values = pool.ids[kept], pool.values[kept]
    pool.cut(kept.size)


def _cut_nucleus(pool: _Pool, share: float) -> None:
    mass = np.exp(pool.values).cumsum(dtype=np.float64)
    count = int(mass.searchsorted(share * (float(mass[-1]) + pool.others))) + 1
    if count > mass.size and pool.others:
        raise _TooShallow
    pool.cut(min(count, mass.size))


def _cut_unlikely(pool: _Pool, share: float) -> None:
    if pool.others and math.log(share) < -DEPTH:
        raise _TooShallow
    pool.cut(_at_least_of_best(pool.values, share))


def _at_least_of_best(ranked: Row, share: float) -> int:
    """How many tokens are at least `share` times as likely as the first one."""
    return int(np.count_nonzero(ranked >= ranked[0] + np.float32(math.log(share))))


def _drop_top_choices(pool: _Pool, threshold: float) -> None:
    """XTC: of all tokens with a probability of `threshold` or more, keep the least likely only."""
    if pool.size < 2:
        return
    weights = np.exp(pool.values)
    mass = float(weights.sum(dtype=np.float64)) + pool.others
    count = int(np.count_nonzero(weights >= threshold * mass))
    if count == pool.ids.size and pool.others:
        raise _TooShallow
    if count > 1:
        pool.dropped = pool.ids[: count - 1]
        pool.ids, pool.values = pool.ids[count - 1 :], pool.values[count - 1 :]
        pool.size -= count - 1


def _temperature(pool: _Pool, sampling: Sampling) -> float:
    """The temperature or, within `dynatemp_range` of it, that which the entropy asks for."""
    if sampling.dynatemp_range <= 0.0 or pool.size <= 1:
        return sampling.temperature if sampling.dynatemp_range <= 0.0 else 1.0
    low = max(0.0, sampling.temperature - sampling.dynatemp_range)
    high = sampling.temperature + sampling.dynatemp_range
    entropy, _ = pool.entropy()
    share = max(0.0, entropy) / math.log(pool.size)
    return low + (high - low) * float(share**sampling.dynatemp_exponent)
