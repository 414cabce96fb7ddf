"""What a call of the model costs, learned while running, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass, field

# OpenBLAS leaves calls of fewer than 32 rows alone, and takes longer over the others.
MIN_CHUNK = 31
# Weight of the past at each observation: about the last fifty calls count.
_MEMORY = 0.98
# How many steps a generation that starts now will run beside the others, roughly.
_TYPICAL_STEPS = 64
_MAX_SPLIT_TOKENS = 512.0


@dataclass(slots=True)
class LinearCost:
    """seconds = base + per_row * rows, by least squares with exponentially fading weights."""

    base: float = 0.0
    per_row: float = 0.0
    _w: float = 0.0
    _wn: float = 0.0
    _wt: float = 0.0
    _wnn: float = 0.0
    _wnt: float = 0.0

    @property
    def known(self) -> bool:
        return self._w > 0

    def observe(self, rows: int, seconds: float) -> None:
        """One call. An absurdly slow one (the machine slept) counts as four times the estimate."""
        if self._w > 4:
            seconds = min(seconds, 4 * self.seconds(rows))
        self._w = self._w * _MEMORY + 1
        self._wn = self._wn * _MEMORY + rows
        self._wt = self._wt * _MEMORY + seconds
        self._wnn = self._wnn * _MEMORY + rows * rows
        self._wnt = self._wnt * _MEMORY + rows * seconds
        self._fit()

    def seconds(self, rows: int) -> float:
        """The expected duration of a call; 0 while nothing is known."""
        return self.base + self.per_row * rows

    def _fit(self) -> None:
        spread = self._w * self._wnn - self._wn * self._wn
        if spread > 1e-6 * self._w * self._wnn:
            slope = (self._w * self._wnt - self._wn * self._wt) / spread
            base = (self._wt - slope * self._wn) / self._w
            if slope > 0 and base >= 0:
                self.base, self.per_row = base, slope
                return
            if slope <= 0:
                self.base, self.per_row = self._wt / self._w, 0.0
                return
        # All calls alike, or a line that would start below zero: proportional.
        self.base, self.per_row = 0.0, self._wnt / self._wnn


@dataclass(slots=True)
class CostModel:
    """How long decode steps and prompt chunks take on this machine, with this model."""

    inter_token_target: float
    max_batch_tokens: int
    decode: LinearCost = field(default_factory=LinearCost)
    prefill: LinearCost = field(default_factory=LinearCost)
    _split: float = 0.0
    _mean_hold: float = 0.0
    _num_holds: int = 0

    def chunk(self, num_decoding: int) -> int:
        """How many prompt tokens to read in one call beside `num_decoding` running streams.

        All of the batch when nothing runs; otherwise what keeps the gap between two tokens of a
        stream within the target, or within twice a decode step where that alone is longer.
        """
        if not num_decoding:
            return self.max_batch_tokens
        if not self.prefill.known or self.prefill.per_row <= 0:
            return min(self.max_batch_tokens, 4 * MIN_CHUNK)
        step = self.decode.seconds(num_decoding)
        spare = max(self.inter_token_target, 2 * step) - step - self.prefill.base
        rows = int(spare / self.prefill.per_row) // MIN_CHUNK * MIN_CHUNK
        return max(MIN_CHUNK, min(rows, self.max_batch_tokens))

    def decoded(self, num_rows: int, num_runs: int, seconds: float) -> None:
        """A decode call of that many rows, in slots that formed that many runs of neighbours."""
        if num_runs == 1:
            self.decode.observe(num_rows, seconds)
        elif self.decode.known:
            extra = (seconds - self.decode.seconds(num_rows)) / (num_runs - 1)
            extra = max(0.0, min(extra, 4 * self.decode.seconds(num_rows)))
            self._split += (extra - self._split) / 8

    @property
    def split_seconds(self) -> float:
        """What one more run of slots adds to a decode call: another pass over the weights, and
        the graph is built anew. Before any was seen, what every call costs."""
        return max(self._split, self.decode.base)

    def padding_pays(self, num_rows: int) -> bool:
        """Whether computing `num_rows` rows for nothing is cheaper than one more run of slots."""
        return self.decode.known and self.decode.per_row * num_rows < self.split_seconds

    @property
    def split_tokens(self) -> float:
        """What one more run of slots costs over a generation, in prompt tokens."""
        if self.prefill.per_row <= 0:
            return MIN_CHUNK
        return min(_MAX_SPLIT_TOKENS, _TYPICAL_STEPS * self.split_seconds / self.prefill.per_row)

    def held(self, seconds: float) -> None:
        """A generation held its slot for that long."""
        self._num_holds += 1
        self._mean_hold += (seconds - self._mean_hold) / min(self._num_holds, 32)

    def seconds_until_slot(self, num_waiting: int, num_slots: int) -> float:
        """How long a request that finds `num_waiting` ahead of it would wait, at least 1 s."""
        hold = self._mean_hold or self.prefill.seconds(256) + 128 * self.decode.seconds(num_slots)
        return max(1.0, hold * (num_waiting + 1) / num_slots)
