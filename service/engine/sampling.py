"""How a row of logits becomes a token id.

Pure numpy on one row, so that nothing here can abort the process and every stage can be tested
without a model. The order is llama.cpp's own: bias, penalties, top-k, typical, top-p, min-p,
temperature, draw. On large vocabularies the few hundred *survivors*, whose probability matters,
are looked at first, and the others only when the draw falls among them.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.engine.runner import Matcher, RunnerError

Row = NDArray[np.float32]
Mass = NDArray[np.float32] | NDArray[np.float64]
Ids = NDArray[np.intp]

# Where each field of `Sampling` acts.
STAGES: Mapping[str, str] = {
    "logit_bias": "bias",
    "repeat_penalty": "penalties",
    "repeat_last_n": "penalties",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "top_k": "truncation",
    "typical_p": "truncation",
    "top_p": "truncation",
    "min_p": "truncation",
    "temperature": "draw",
    "seed": "draw",
}

# A token one millionth as likely as the best one is a survivor.
_DEPTH = math.log(1e6)

# What all others may hold, the best token's weight being 1, before they are all looked at.
_MAX_MISSING = 1e-2

# Above this many survivors, all tokens are looked at.
_MAX_SURVIVORS = 20_000

# Vocabularies up to this size; all tokens below a hundred-millionth together don't matter there.
_SMALL = 4096
_SMALL_DEPTH = math.log(1e8)

# Every how many-th token estimates the others; a prime, so that no pattern is missed.
_STRIDE = 61

# Colder than this is as good as greedy, and single precision would overflow.
_COLDEST = 1e-4

_BLOCK = 128
_ONES = np.ones(_BLOCK, np.float32)


class RowSampler:
    """The sampling state of one sequence over `rows(i)`, the logits of the last decode.

    The same seed gives the same choices for the same logits, whatever else is in the batch.
    Raises `InvalidRequest` for a bias on a token that the model does not have.
    """

    def __init__(
        self,
        sampling: Sampling,
        rows: Callable[[int], Row],
        *,
        vocabulary_size: int,
        suppressed: Sequence[int] = (),
        prompt_tail: Sequence[int] = (),
        matcher: Matcher | None = None,
    ) -> None:
        self._sampling = sampling
        self._matcher = matcher
        self._rows: Callable[[int], Row] | None = rows
        self._bias = _bias_of(sampling, vocabulary_size, suppressed)
        self._penalties = Penalties.of(sampling, prompt_tail)
        self._adjusts = self._bias is not None or self._penalties is not None
        self._greedy = sampling.greedy
        self._draw: Callable[[], float] | None = None
        if not self._greedy:
            seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
            self._draw = np.random.Generator(np.random.PCG64(seed)).random

    def sample(self, row: int) -> int:
        if self._rows is None:
            raise RunnerError("the sampler was closed")
        logits = self._rows(row)
        choose = self._choose_adjusted if self._adjusts else self._choose
        token_id = choose(logits)
        if self._matcher is not None and not self._matcher.validate(token_id):
            token_id = choose(_only(logits, self._matcher.allowed()))
        self.accept(token_id)
        return token_id

    def accept(self, token_id: int) -> None:
        if self._penalties is not None:
            self._penalties.accept(token_id)
        if self._matcher is not None:
            self._matcher.consume(token_id)

    def close(self) -> None:
        self._rows = None

    def _choose(self, logits: Row) -> int:
        if self._draw is None:
            return int(logits.argmax())
        return choose(logits, self._sampling, self._draw())

    def _choose_adjusted(self, logits: Row) -> int:
        """Choose from the row with bias and penalties, and leave the row as it was."""
        saved: list[tuple[Ids, Row]] = []
        if self._bias is not None:
            ids, bias = self._bias
            saved.append((ids, logits[ids]))
            logits[ids] += bias
        if self._penalties is not None and self._penalties.counts:
            ids = self._penalties.ids()
            values = logits[ids]
            saved.append((ids, values))
            logits[ids] = self._penalties.apply(values)
        try:
            return self._choose(logits)
        finally:
            for ids, values in reversed(saved):
                logits[ids] = values


class Penalties:
    """Makes recent tokens less likely, as llama.cpp does over prompt and answer alike."""

    def __init__(self, sampling: Sampling, window: int | None, tail: Sequence[int]) -> None:
        self._repeat = sampling.repeat_penalty
        self._frequency = sampling.frequency_penalty
        self._presence = sampling.presence_penalty
        self._window = window
        self._recent: deque[int] = deque(tail if window is None else tail[-window:])
        self.counts: Counter[int] = Counter(self._recent)

    @classmethod
    def of(cls, sampling: Sampling, tail: Sequence[int]) -> Penalties | None:
        """None where the options are neutral; `repeat_last_n` -1 remembers everything."""
        neutral = (
            sampling.repeat_penalty == 1.0
            and sampling.frequency_penalty == 0.0
            and sampling.presence_penalty == 0.0
        )
        if neutral or sampling.repeat_last_n == 0:
            return None
        return cls(sampling, None if sampling.repeat_last_n < 0 else sampling.repeat_last_n, tail)

    def accept(self, token_id: int) -> None:
        """Remember a token; forget the one that leaves the window."""
        self._recent.append(token_id)
        self.counts[token_id] += 1
        if self._window is not None and len(self._recent) > self._window:
            gone = self._recent.popleft()
            self.counts[gone] -= 1
            if not self.counts[gone]:
                del self.counts[gone]

    def ids(self) -> Ids:
        return np.fromiter(self.counts.keys(), np.intp, len(self.counts))

    def apply(self, logits: Row) -> Row:
        """The logits of `ids()`, penalised."""
        counts = np.fromiter(self.counts.values(), np.float32, len(self.counts))
        if self._repeat != 1.0:
            logits = np.where(logits > 0, logits / self._repeat, logits * self._repeat)
        return (logits - (counts * self._frequency + self._presence)).astype(np.float32)


def _only(logits: Row, allowed: NDArray[np.bool_]) -> Row:
    """The row with nothing but what is allowed. Raises `RunnerError` where nothing is."""
    if not allowed.any():
        raise RunnerError("the constraint allows no token at all")
    return np.where(allowed, logits, np.float32(-math.inf))


def choose(logits: Row, sampling: Sampling, draw: float) -> int:
    """The token that `draw`, uniform in [0, 1), selects. Temperature must not be 0."""
    best = logits[logits.argmax()]  # three times as fast as max()
    if not math.isfinite(best):
        raise RunnerError(f"the model's logits are not numbers (their maximum is {best})")
    temperature = max(sampling.temperature, _COLDEST)
    if not _truncates(sampling):
        return _draw_from_row(logits, best, temperature, draw)
    ids, values, missing = _eligible(logits, best, sampling)
    places, values = _truncate(values, missing, sampling)
    place = places[_place(_cumulated(np.exp(values / temperature)), draw)]
    return int(place if ids is None else ids[place])


def _truncates(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1 or sampling.typical_p < 1 or sampling.min_p > 0


def _cumulated(weights: Row) -> Mass:
    """Running sums, in double precision where single would round away what many hold."""
    mass: Mass = weights.cumsum(dtype=np.float64 if weights.size > _SMALL else np.float32)
    return mass


def _place(mass: Mass, draw: float) -> int:
    """Where `draw`, a share, falls in cumulated mass; never on a place that holds nothing."""
    total = float(mass[-1])
    place = int(mass.searchsorted(draw * total, side="right"))
    return place if place < mass.size else int(mass.searchsorted(total))


def _draw_from_row(logits: Row, best: np.float32, temperature: float, draw: float) -> int:
    """A draw from the whole row. Survivors come first, and nearly always they are enough."""
    ids, missing = _survivors(logits, best, temperature)
    if ids is None or missing > _MAX_MISSING:
        return _draw_exactly(_weights(logits, best, temperature), draw)
    mass = _cumulated(_weights(logits[ids], best, temperature))
    found = float(mass[-1])
    target = draw * (found + missing)
    if target < found or not missing:
        return int(ids[_place(mass, target / found)])
    others = _weights(logits, best, temperature)
    others[ids] = 0.0
    return _draw_exactly(others, (target - found) / missing)


def _weights(logits: Row, best: np.float32, temperature: float) -> Row:
    """Unnormalised probabilities, the best token's being 1."""
    weights = logits - best
    if temperature != 1.0:
        weights *= np.float32(1 / temperature)
    np.exp(weights, out=weights)
    return weights


def _draw_exactly(weights: Row, draw: float) -> int:
    """A draw from all weights: first a block, then a token of that block.

    Summing blocks by a matrix product is ten times as fast as cumulating a whole row.
    """
    num_blocks = weights.size // _BLOCK
    if num_blocks < 2:
        return _place(_cumulated(weights), draw)
    head = num_blocks * _BLOCK
    sums = np.empty(num_blocks + 1, np.float64)
    sums[:-1] = weights[:head].reshape(num_blocks, _BLOCK) @ _ONES
    sums[-1] = weights[head:].sum()
    mass = sums.cumsum()
    block = _place(mass, draw)
    inside = (draw * mass[-1] - (mass[block] - sums[block])) / sums[block]
    start = block * _BLOCK
    return start + _place(weights[start : start + _BLOCK].cumsum(), max(0.0, inside))


def _survivors(logits: Row, best: np.float32, temperature: float) -> tuple[Ids | None, float]:
    """Tokens more likely than a millionth of the best one, and the estimated mass of the others.

    The estimate comes from every 61st token and is off by some tenths at worst: good enough
    where the others hold little. In small vocabularies the bar is a hundred-millionth, and the
    others hold nothing. None stands for all tokens, where so many survive that looking at all
    is as fast.
    """
    if logits.size <= _SMALL:
        return _at_least(logits, best - np.float32(_SMALL_DEPTH * temperature)), 0.0
    threshold = best - np.float32(_DEPTH * temperature)
    sample = logits[::_STRIDE]
    others = sample[sample < threshold]
    if (sample.size - others.size) * _STRIDE > _MAX_SURVIVORS:
        return None, 0.0
    missing = _STRIDE * float(_weights(others, best, temperature).sum())
    return _at_least(logits, threshold), missing


def _at_least(logits: Row, threshold: np.float32) -> Ids:
    ids: Ids = (logits >= threshold).nonzero()[0]
    return ids


def _eligible(logits: Row, best: np.float32, sampling: Sampling) -> tuple[Ids | None, Row, float]:
    """Tokens among which truncation finds all that it keeps (None for all of them), their logits
    below the best one, and the mass of the others where it matters."""
    missing = 0.0
    ids: Ids | None
    if logits.size <= _SMALL:
        ids, _ = _survivors(logits, best, max(1.0, sampling.temperature))
    elif sampling.top_k > 0:
        ids = _top_candidates(logits, sampling.top_k)
    elif sampling.typical_p == 1 and sampling.top_p == 1:
        ids = _at_least(logits, best + np.float32(math.log(sampling.min_p)))
    else:
        ids, missing = _survivors(logits, best, 1.0)
    if ids is None:
        return None, logits - best, 0.0
    values = logits[ids] - best
    if missing:
        found = float(np.exp(values).sum())
        share = max(p for p in (sampling.top_p, sampling.typical_p) if p < 1)
        if found < share * (found + missing):
            return None, logits - best, 0.0
    return ids, values, missing


def _top_candidates(logits: Row, count: int) -> Ids | None:
    """At least the `count` best tokens and seldom many more; None when that is most of them.

    The threshold is that of a sample in which a few more than its share lie above.
    """
    sample = logits[::_STRIDE]
    above = count // _STRIDE + 8
    if above >= sample.size:
        return None
    ids = _at_least(logits, np.partition(sample, sample.size - above)[sample.size - above])
    return ids if ids.size >= count else None


def _truncate(values: Row, missing: float, sampling: Sampling) -> tuple[Ids, Row]:
    """What top-k, typical, top-p and min-p leave, in this order: places, and their values.

    `values` are logits below the best one, `missing` is the mass of tokens that are not among
    them. The best come first, so that every cut but the typical one keeps a beginning; at least
    one token stays.
    """
    places: Ids = values.argsort()[::-1]
    if sampling.top_k > 0:
        places = places[: sampling.top_k]
    ranked = values[places]
    if sampling.typical_p < 1:
        kept = _typical(ranked, sampling.typical_p)
        places, ranked = places[kept], ranked[kept]
    if sampling.top_p == 1 and sampling.min_p == 0:
        return places, ranked
    weights = np.exp(ranked)
    count = ranked.size
    if sampling.top_p < 1:
        mass = _cumulated(weights)
        count = int(mass.searchsorted(sampling.top_p * (float(mass[-1]) + missing))) + 1
    if sampling.min_p > 0:
        count = min(count, int(np.count_nonzero(weights >= sampling.min_p * weights[0])))
    return places[:count], ranked[:count]


def _typical(values: Row, share: float) -> Ids:
    """Places, in order, of tokens whose surprise is closest to the expected one, up to `share`."""
    weights = np.exp(values)
    probability = weights / weights.sum()
    surprise = -np.log(np.maximum(probability, np.finfo(np.float32).tiny))
    distance = np.abs(surprise - (probability * surprise).sum())
    order = np.argsort(distance, kind="stable")
    mass = probability[order].cumsum(dtype=np.float64)
    return np.sort(order[: int(mass.searchsorted(share * mass[-1])) + 1])


def _bias_of(
    sampling: Sampling, vocabulary_size: int, suppressed: Sequence[int]
) -> tuple[Ids, Row] | None:
    """Token ids with what is added to their logits, suppressed tokens last and at -infinity."""
    for token_id in sampling.logit_bias:
        if not 0 <= token_id < vocabulary_size:
            raise InvalidRequest(
                f"logit_bias names token {token_id}; the model has tokens 0 to "
                f"{vocabulary_size - 1}.",
                param="logit_bias",
            )
    bias = {**sampling.logit_bias, **dict.fromkeys(suppressed, -math.inf)}
    if not bias:
        return None
    return np.array(list(bias), np.intp), np.array(list(bias.values()), np.float32)
