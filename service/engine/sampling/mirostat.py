"""Mirostat: keeps the surprise of what is written near a target, by feedback."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from service.domain.sampling import Sampling
from service.engine.sampling.candidates import Ids, Row, above, best_of, mass_of, top, weights_of
from service.engine.sampling.draw import COLDEST, cumulated, place_in

# So many tokens tell the shape of the distribution (version 1); llama.cpp's constant.
_NUM_SHAPE = 100


class Mirostat:
    """Chooses within a limit on surprise that moves with every token; versions 1 and 2.

    As in llama.cpp it stands in for all other samplers but logit bias and temperature.
    """

    def __init__(self, sampling: Sampling, random: Callable[[], float]) -> None:
        self._version = sampling.mirostat
        self._temperature = sampling.temperature
        self._target = sampling.mirostat_tau
        self._rate = sampling.mirostat_eta
        self._random = random
        self.limit = 2.0 * sampling.mirostat_tau
        """The limit for the next token, in bits."""
        self._next_limit = self.limit

    def choose(self, logits: Row) -> int:
        """A token of the row. `accept` makes the limit follow."""
        best = best_of(logits)
        if self._temperature <= COLDEST:
            return int(logits.argmax())
        keep = self._keep_by_shape if self._version == 1 else self._keep_by_surprise
        ids, values = keep(logits, best)
        mass = cumulated(np.exp(values))
        place = place_in(mass, self._random())
        share = math.exp(float(values[place])) / float(mass[-1])
        self._next_limit = self.limit - self._rate * (-math.log2(share) - self._target)
        return int(ids[place])

    def accept(self) -> None:
        """What was chosen last is what came."""
        self.limit = self._next_limit

    def _keep_by_shape(self, logits: Row, best: np.float32) -> tuple[Ids, Row]:
        """Version 1: as many of the best as a Zipf law, fitted to the first 100, asks for."""
        ids, values = top(logits, best, _NUM_SHAPE)
        scaled = values.astype(np.float64) / self._temperature
        ranks = np.arange(1, scaled.size)
        steps = np.log((ranks + 1) / ranks)
        slope = float(steps @ (scaled[:-1] - scaled[1:])) / float(steps @ steps or 1.0)
        count = self._count(slope, logits.size)
        if count > ids.size:
            ids, values = top(logits, best, count)
        return ids[:count], values[:count] / np.float32(self._temperature)

    def _count(self, slope: float, size: int) -> int:
        """How many tokens; in logarithms, because the powers are beyond any float."""
        if not math.isfinite(slope):
            return 1
        excess = slope - 1.0
        if abs(excess) < 1e-9:
            ratio = 1.0 / math.log(size)
        else:
            ratio = excess / -math.expm1(-excess * math.log(size))
        bits = math.log(ratio) + self.limit * math.log(2.0)
        power = bits / slope if slope > 0.0 else math.copysign(math.inf, bits)
        return size if power > math.log(size) else max(1, int(math.exp(power)))

    def _keep_by_surprise(self, logits: Row, best: np.float32) -> tuple[Ids, Row]:
        """Version 2: all tokens that surprise no more than the limit, but one at least."""
        mass = mass_of(weights_of(logits, best, self._temperature))
        depth = self.limit * math.log(2.0) - math.log(mass)
        ids, values = above(logits, best, max(0.0, depth) * self._temperature)
        if depth < 0.0:
            ids, values = ids[:1], values[:1]
        return ids, values / np.float32(self._temperature)
