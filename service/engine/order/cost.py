"""What a call of the model costs, learned while running, and what follows from that."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from math import log2

# A call of a size that is not too bad on any machine, for when nothing is known yet.
SMALL_CALL_ROWS = 31
# Sizes of calls that are told apart; beyond the last, doubling.
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, SMALL_CALL_ROWS, 48)
# What a call of one row costs, as a share of the smallest call that was seen: passing over the
# weights is a part of it. Measured with 0.5B parameters on two cores: 15 %, of 31 rows.
_CALL_SHARE = 0.2
# A call that takes longer than expected may be an accident, one that is quicker can't be.
_WEIGHT_OF_SLOW, _WEIGHT_OF_QUICK = 0.125, 0.25
_ABSURD = 2.0
# Below this position a call tells what its rows cost; from there on, what attention does.
_ATTENTION_FROM = 512.0
# From so many rows on attention looks at several at once.
_MANY_ROWS = 64
# Attention never costs a row more than everything else does, so near the beginning.
_LEAST_POSITION = 256.0
# While prompts are read, a gap of a running stream is up to so many of its steps long.
_STEPS_PER_GAP = 3.5
_FEWEST_STEPS_PER_GAP = 2.0
# A gap that nobody notices.
_UNNOTICED_SECONDS = 0.03
# A call that no stream waits beside; what comes meanwhile waits that long. One that reads a whole
# prompt may take longer: every further call costs everybody.
_CALL_SECONDS = 0.4
_WHOLE_SECONDS = 2.5
# Bulk is believed to pay where it is about as quick.
_ABOUT = 1.02
# How many steps a generation that starts now will run beside the others, roughly.
_TYPICAL_STEPS = 64
_MAX_SPLIT_TOKENS = 512.0


@dataclass(slots=True)
class CallCost:
    """Seconds of a call by its number of rows: what was seen, and straight lines in between.

    Other work on the machine makes calls slower, never quicker; so the estimate believes quick
    calls sooner than slow ones. What one size teaches moves the others along, so that one that was
    last seen in a bad moment does not keep its bad name.
    """

    _sizes: list[int] = field(default_factory=list)
    _seconds: dict[int, float] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        return bool(self._sizes)

    def observe(self, rows: int, seconds: float) -> None:
        """One call. An absurdly slow one (the machine slept) counts as twice the estimate."""
        size = _size_of(rows)
        expected = self.seconds(rows)
        if expected <= 0:
            if not self._sizes:
                self._sizes.append(size)
            self._seconds[size] = seconds * size / rows
            return
        if size not in self._seconds:
            ratio = min(seconds / expected, 2 * _ABSURD)
            known = self.seconds(size) * ratio
            insort(self._sizes, size)
            self._seconds[size] = known
            return
        ratio = min(seconds / expected, _ABSURD)
        slow = ratio > 1
        weight = _WEIGHT_OF_SLOW if slow else _WEIGHT_OF_QUICK
        along = 1 + (ratio - 1) * (weight / 2 if slow else weight)
        own = self._seconds[size] * (1 + (ratio - 1) * weight)
        for other in self._sizes:
            self._seconds[other] *= along
        self._seconds[size] = own

    def seconds(self, rows: int) -> float:
        """The expected duration of a call; 0 while nothing is known."""
        if not self._sizes:
            return 0.0
        at = bisect_left(self._sizes, rows)
        if at == len(self._sizes):
            largest = self._sizes[-1]
            return self._seconds[largest] + (rows - largest) * self.per_row
        above = self._sizes[at]
        if above == rows:
            return self._seconds[rows]
        if at == 0:
            return self._seconds[above] * (_CALL_SHARE + (1 - _CALL_SHARE) * rows / above)
        below = self._sizes[at - 1]
        share = (rows - below) / (above - below)
        return self._seconds[below] + share * (self._seconds[above] - self._seconds[below])

    @property
    def per_row(self) -> float:
        """What one more row adds to a call; never less than nothing."""
        if not self._sizes:
            return 0.0
        least, most = self._sizes[0], self._sizes[-1]
        if least == most:
            return self._seconds[most] * (1 - _CALL_SHARE) / most
        return max(0.0, (self._seconds[most] - self._seconds[least]) / (most - least))

    @property
    def base(self) -> float:
        """What a call costs before its first row."""
        return max(0.0, self.seconds(1) - self.per_row)


def _size_of(rows: int) -> int:
    """The size that calls of `rows` are counted with."""
    if rows <= _SIZES[-1]:
        at = bisect_left(_SIZES, rows)
        above = _SIZES[at]
        below = _SIZES[max(0, at - 1)]
        return above if above * below <= rows * rows else below
    return int(2 ** round(log2(rows)))


@dataclass(slots=True)
class AttentionCost:
    """What a row costs more for every token before it, in seconds."""

    per_position: float = 0.0
    known: bool = False

    def observe(self, positions: float, seconds: float, highest: float) -> None:
        """Rows that had `positions` tokens before them, summed up, took `seconds` longer."""
        if self.known:
            highest = min(highest, _ABSURD * self.per_position)
        seen = min(max(0.0, seconds / positions), highest)
        if not self.known:
            if seen > 0:
                self.per_position, self.known = seen, True
            return
        weight = _WEIGHT_OF_SLOW if seen > self.per_position else _WEIGHT_OF_QUICK
        self.per_position += (seen - self.per_position) * weight

    def guess(self, like: AttentionCost) -> None:
        """While nothing is known."""
        self.per_position = like.per_position


@dataclass(slots=True)
class CostModel:
    """How long decode steps and prompt chunks take on this machine, with this model.

    From `bulk_rows` on (None: nowhere) calls are computed in another way, which is believed to be
    quicker until they have been seen to be slower.
    """

    inter_token_target: float
    max_batch_tokens: int
    bulk_rows: int | None = None
    decode: CallCost = field(default_factory=CallCost)
    prefill: CallCost = field(default_factory=CallCost)
    bulk: CallCost = field(default_factory=CallCost)
    few_at_position: AttentionCost = field(default_factory=AttentionCost)
    many_at_position: AttentionCost = field(default_factory=AttentionCost)
    _split: float = 0.0
    _mean_hold: float = 0.0
    _num_holds: int = 0

    # --- reading prompts ---------------------------------------------------------------------
    def read(self, rows: int, start: float, seconds: float) -> None:
        """A call read `rows` prompt tokens, that far into their prompts on average."""
        position = start + rows / 2
        calls = self.bulk if self._in_bulk(rows) else self.prefill
        if position < _ATTENTION_FROM or not calls.known:
            calls.observe(rows, max(seconds - self._attention(rows, position), seconds / 4))
            return
        plain = calls.seconds(rows)
        own, other = self._attention_costs(rows)
        own.observe(rows * position, seconds - plain, plain / rows / _LEAST_POSITION)
        if not other.known:
            other.guess(own)

    def call_seconds(self, rows: int, start: float) -> float:
        """How long a call would take for `rows` tokens from position `start` on."""
        return self._plain(rows) + self._attention(rows, start + rows / 2)

    def reading_seconds(self, num_tokens: int, start: int = 0) -> float:
        """How long reading that much of one prompt takes, with nothing beside it."""
        if num_tokens <= 0:
            return 0.0
        rows = self.rows_alone(num_tokens, start)
        plain = self._plain(rows) * num_tokens / rows
        return plain + self._attention(num_tokens, start + num_tokens / 2)

    def reading_rate(self) -> float:
        """Prompt tokens per second in small calls; 0 while nothing is known."""
        seconds = self.prefill.seconds(SMALL_CALL_ROWS)
        return SMALL_CALL_ROWS / seconds if seconds else 0.0

    def rows_alone(self, num_tokens: int, start: int, *, whole: bool = True) -> int:
        """The next call for a prompt of which `num_tokens` are left, with nothing beside it.

        As many as stay within a moment, so that nobody who comes meanwhile waits long; in bulk
        where that pays. All that it has may take a little longer where that is the `whole`.
        """
        most = min(num_tokens, self.max_batch_tokens)
        if not self.prefill.known:
            return min(most, SMALL_CALL_ROWS)
        if self._in_bulk(most):
            if self.bulk_pays(most):
                return most
            most = max(1, (self.bulk_rows or 1) - 1)
        if whole and most == num_tokens and self.call_seconds(most, start) <= _WHOLE_SECONDS:
            return most
        return self._most_rows(_CALL_SECONDS, start, min(most, SMALL_CALL_ROWS), most)

    def bulk_pays(self, rows: int) -> bool:
        """Whether a call of so many rows is quicker in bulk than in small calls."""
        rows = min(rows, self.max_batch_tokens)
        if not self._in_bulk(rows):
            return False
        small = min(rows, (self.bulk_rows or 1) - 1)
        return self._plain(rows) <= _ABOUT * self.prefill.seconds(small) * rows / small

    def _in_bulk(self, rows: int) -> bool:
        return self.bulk_rows is not None and rows >= self.bulk_rows

    def _plain(self, rows: int) -> float:
        """A call at the beginning of a prompt. Before one in bulk was seen, half of what it costs
        at the break-even is taken to be for the call, and half for its rows."""
        if self.bulk_rows is None or rows < self.bulk_rows:
            return self.prefill.seconds(rows)
        if self.bulk.known:
            return self.bulk.seconds(rows)
        return self.prefill.seconds(self.bulk_rows) * (1 + rows / self.bulk_rows) / 2

    def gap(self, num_decoding: int, *, owed: bool = False) -> float:
        """The time between two tokens of a running stream while prompts are read beside it.

        A few of its steps, within the target where the steps allow it. A reader to whom the others
        have not left anything so far is `owed` all of these steps.
        """
        step = self.decode.seconds(num_decoding)
        longest = _STEPS_PER_GAP * step
        gap = longest if owed else min(longest, self.inter_token_target)
        return max(gap, _FEWEST_STEPS_PER_GAP * step, _UNNOTICED_SECONDS)

    def rows_beside(self, num_decoding: int, start: int, *, owed: bool = False) -> int:
        """How many tokens to read between two steps of that many running streams."""
        spare = self.gap(num_decoding, owed=owed) - self.decode.seconds(num_decoding)
        if not self.prefill.known:
            return min(self.max_batch_tokens, SMALL_CALL_ROWS // 2)
        most = self.max_batch_tokens if self.bulk_rows is None else self.bulk_rows - 1
        rows = self._most_rows(spare, start, 1, max(1, min(most, self.max_batch_tokens)))
        return rows - rows % 4 if rows > 4 else rows

    def _most_rows(self, seconds: float, start: int, least: int, most: int) -> int:
        """The largest call of `least` to `most` rows that is expected to stay within `seconds`, or
        `least`."""
        low, high = least, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.call_seconds(middle, start) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low

    def _attention(self, rows: int, position: float) -> float:
        own, _ = self._attention_costs(rows)
        return own.per_position * rows * position

    def _attention_costs(self, rows: int) -> tuple[AttentionCost, AttentionCost]:
        """That of calls of so many rows first."""
        if rows < _MANY_ROWS:
            return self.few_at_position, self.many_at_position
        return self.many_at_position, self.few_at_position

    # --- decoding ----------------------------------------------------------------------------
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
        rate = self.reading_rate()
        if not rate:
            return SMALL_CALL_ROWS
        return min(_MAX_SPLIT_TOKENS, _TYPICAL_STEPS * self.split_seconds * rate)

    # --- waiting -----------------------------------------------------------------------------
    def held(self, seconds: float) -> None:
        """A generation held its slot for that long."""
        self._num_holds += 1
        self._mean_hold += (seconds - self._mean_hold) / min(self._num_holds, 32)

    def hold_seconds(self, num_slots: int) -> float:
        """How long a generation holds its slot, usually."""
        return self._mean_hold or self.prefill.seconds(256) + 128 * self.decode.seconds(num_slots)

    def seconds_until_slot(self, num_waiting: int, num_slots: int) -> float:
        """How long a request that finds `num_waiting` ahead of it would wait, at least 1 s."""
        return max(1.0, self.hold_seconds(num_slots) * (num_waiting + 1) / num_slots)
