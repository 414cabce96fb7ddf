"""How a row of logits becomes a token id.

Pure numpy on one row, so that nothing here can abort the process and every stage can be tested
without a model. The order is llama.cpp's own: bias, penalties, top-k, typical, top-p, min-p,
temperature, draw. Only *survivors*, the few hundred tokens whose probability could matter, are
looked at; see `_survivors` for what is cut off and why that is safe.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.engine.runner import RunnerError

Row = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
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

# A token e^-13.8 (one millionth) as likely as the best one is a survivor.
_DEPTH = math.log(1e6)

# Probability that may be cut off with the tokens that do not survive, before all are looked at.
_MAX_LOST = 1e-4

# Vocabularies up to this size are looked at whole: finding survivors would cost more.
_SMALL = 4096

# The share of the row that estimates what is being cut off; odd, so that no pattern is missed.
_STRIDE = 61


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
    ) -> None:
        self._sampling = sampling
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
        if not self._adjusts:
            return self._choose(logits)
        token_id = self._choose_adjusted(logits)
        if self._penalties is not None:
            self._penalties.accept(token_id)
        return token_id

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
            saved.append((ids, logits[ids]))
            logits[ids] = self._penalties.apply(logits[ids])
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


def choose(logits: Row, sampling: Sampling, draw: float) -> int:
    """The token that `draw`, uniform in [0, 1), selects. Temperature must not be 0."""
    best = float(logits.max())
    if not math.isfinite(best):
        raise RunnerError(f"the model's logits are not numbers (their maximum is {best})")
    truncates = sampling.top_k > 0 or min(sampling.top_p, sampling.typical_p) < 1 or sampling.min_p
    ids = _survivors(logits, best, max(1.0, sampling.temperature))
    values = logits - np.float32(best) if ids is None else logits[ids] - np.float32(best)
    if truncates:
        kept = _truncate(values, sampling)
        values = values[kept]
        ids = kept if ids is None else ids[kept]
    weights = np.exp(values / np.float32(sampling.temperature)).cumsum(dtype=np.float64)
    chosen = int(weights.searchsorted(draw * weights[-1], side="right"))
    return chosen if ids is None else int(ids[chosen])


def _survivors(logits: Row, best: float, temperature: float) -> Ids | None:
    """Ids of the tokens that could be chosen, or None when that may be any of them.

    Left out are tokens less than a millionth as likely as the best one, if together they hold
    less than one ten-thousandth of the probability, by estimate from every 61st token. Flat
    distributions fail that test, and all their tokens are kept.
    """
    if logits.size <= _SMALL:
        return None
    threshold = np.float32(best - _DEPTH * temperature)
    sample = logits[::_STRIDE]
    cut = sample[sample < threshold]
    if sample.size - cut.size > sample.size // 8:
        return None
    lost = _STRIDE * float(np.exp((cut - np.float32(best)) / np.float32(temperature)).sum())
    if lost > _MAX_LOST:
        return None
    return np.flatnonzero(logits >= threshold)


def _truncate(values: Row, sampling: Sampling) -> Ids:
    """Places in `values` (logits below the best one) that top-k, typical, top-p and min-p leave.

    Tokens that tie with the last one kept are kept too. At least the best token stays.
    """
    places: Ids = np.arange(values.size)
    if 0 < sampling.top_k < values.size:
        floor = np.partition(values, values.size - sampling.top_k)[values.size - sampling.top_k]
        places = np.flatnonzero(values >= floor)
    if sampling.typical_p < 1:
        places = places[_typical(values[places], sampling.typical_p)]
    if sampling.top_p < 1:
        kept = values[places]
        ordered = np.sort(kept)[::-1]
        mass = np.exp(ordered).cumsum(dtype=np.float64)
        last = int(mass.searchsorted(sampling.top_p * mass[-1]))
        places = places[kept >= ordered[min(last, ordered.size - 1)]]
    if sampling.min_p > 0:
        kept = values[places]
        places = places[kept >= kept.max() + np.float32(math.log(sampling.min_p))]
    return places


def _typical(values: Row, share: float) -> Ids:
    """Places of the tokens whose surprise is closest to the expected one, up to `share`."""
    weights = np.exp(values)
    probability = weights / weights.sum()
    surprise = -np.log(np.maximum(probability, np.finfo(np.float32).tiny))
    distance = np.abs(surprise - (probability * surprise).sum())
    order = np.argsort(distance, kind="stable")
    mass = probability[order].cumsum(dtype=np.float64)
    return order[: int(mass.searchsorted(share * mass[-1])) + 1]


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
