"""Tokens that can be guessed are checked several at a time, where that is quicker.

A guess costs nothing but time: what the model makes of each place is sampled as ever, and a guess
is of use only as far as it says the same. So an answer is the same with and without, to the token.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

from service.engine.drafting import Drafting
from service.engine.order.cost import CostModel
from service.engine.runner import ModelRunner
from service.engine.sequence import Sequence

# Lengths of guesses. Rows beyond 16 are computed no quicker together than apart.
LENGTHS = (1, 2, 3, 5, 7, 11, 15)


# Tokens by which a place is recognised, and bits of each in a key.
_NUM_KNOWN = 3
_BITS = 21
_MASK = (1 << _BITS * _NUM_KNOWN) - 1
# Tokens that are taken in before one step; a long prompt takes several.
_TAKEN_IN = 4096

# Weight of the latest guess in the share of those that were right.
_WEIGHT = 0.2
# Fewer are not worth a thought.
_LEAST_SHARE = 0.3
# How much quicker it must promise to be.
_MARGIN = 1.08
# After so many steps without a guess, for its cost alone, what guesses cost is measured again.
_PATIENCE = 1000


class Lookup:
    """Where a sequence has been in the same place before, and what came then."""

    __slots__ = ("_key", "_next", "_num_taken")

    def __init__(self) -> None:
        self._next: dict[int, int] = {}
        self._num_taken = 0
        self._key = 0

    def guess(self, token_ids: Several[int], length: int) -> list[int]:
        """What followed the latest tokens last time; nothing where there was no such time.

        Where that runs into the present, it goes on with itself: whoever says the same thing over
        and over will say it again.
        """
        at = self._take_in(token_ids)
        if at is None:
            return []
        guess: list[int] = []
        for place in range(at, at + length):
            here = place - len(token_ids)
            guess.append(token_ids[place] if here < 0 else guess[here])
        return guess

    def _take_in(self, token_ids: Several[int]) -> int | None:
        """Remember each place; returns where the present one was before."""
        stop = min(len(token_ids), self._num_taken + _TAKEN_IN)
        key, found = self._key, None
        for place in range(self._num_taken, stop):
            key = (key << _BITS | token_ids[place]) & _MASK
            if place >= _NUM_KNOWN - 1:
                found = self._next.get(key)
                self._next[key] = place + 1
        self._key, self._num_taken = key, stop
        return found if stop == len(token_ids) else None


@dataclass(slots=True)
class _Record:
    """How guesses for one sequence have been: the shares of tokens that were right, of those that
    it had written before and of those that its grammar left no choice about."""

    sequence: Sequence
    lookup: Lookup = field(default_factory=Lookup)
    repeated: float = 0.0
    forced: float = 0.9
    is_forced: bool = False
    expected: int | None = None

    @property
    def share(self) -> float:
        return self.forced if self.is_forced else self.repeated

    def guess(self, length: int) -> list[int]:
        guess = self.sequence.sampler.forced()[:length]
        self.is_forced = bool(guess)
        if not guess:
            guess = self.lookup.guess(self.sequence.token_ids, length)
        self.expected = guess[0] if guess else None
        return guess

    def compare(self, token_id: int) -> None:
        """What would have been guessed here, and was not, with what came."""
        if self.expected is not None:
            self.saw(int(self.expected == token_id), int(self.expected != token_id))

    def saw(self, num_right: int, num_wrong: int) -> None:
        share = self.share
        for right in (*(1.0,) * num_right, *(0.0,) * num_wrong):
            share += (right - share) * _WEIGHT
        if self.is_forced:
            self.forced = share
        else:
            self.repeated = share


class Speculation:
    """When to guess, how far, and what. Engine thread only.

    While nothing is guessed, the next token is still compared with what the guess would have been:
    so it is known what guesses are worth before any costs something. Where neither what was said
    before nor the grammar knows what comes next, a draft model may. A runner's `max_draft` of 0
    turns all of it off.
    """

    def __init__(self, cost: CostModel, runner: ModelRunner, clock: Callable[[], float]) -> None:
        self._cost = cost
        self._lengths = [length for length in LENGTHS if length <= runner.max_draft]
        drafter = runner.drafter
        self._drafting = None if drafter is None else Drafting(drafter, self._lengths, clock)
        self._is_modelled = False
        self._record: _Record | None = None
        # Seconds of a step by its number of rows.
        self._seconds: dict[int, float] = {}
        # How much more rows cost than was expected, where it was seen.
        self._dearer = 1.0
        self._num_declined = 0

    def draft(self, sequences: Several[Sequence]) -> list[int]:
        """What the only sequence says next, as far as it pays to guess.

        Several sequences fill a step well enough by themselves.
        """
        if len(sequences) != 1 or not self._lengths:
            return []
        sequence = sequences[0]
        if sequence.job.seen is not None:  # its places are no tokens that could be guessed
            return []
        record = self._record
        if record is None or record.sequence is not sequence:
            record = self._record = _Record(sequence)
        room = min(
            sequence.max_tokens - sequence.num_generated - 1,
            sequence.lane.room - 1,
            self._lengths[-1],
        )
        guess = record.guess(max(room, 1))
        guess = guess[: self._best_length(record.share, min(len(guess), room))]
        self._is_modelled = self._drafting is not None and not guess
        if self._drafting is None or guess:
            return guess
        return self._drafting.draft(sequence, room, self._step_seconds)

    def stepped(self, sequence: Sequence, num_drafted: int, num_right: int, seconds: float) -> None:
        """The only sequence took a step of that many guesses, which took that long."""
        record = self._record
        if record is None or record.sequence is not sequence:
            return
        self._learn(num_drafted + 1, seconds)
        if num_drafted and self._is_modelled and self._drafting is not None:
            self._drafting.stepped(num_drafted, num_right)
            record.compare(sequence.token_ids[-1 - num_right])
        elif num_drafted:
            record.saw(num_right, int(num_right < num_drafted))
        else:
            record.compare(sequence.token_ids[-1])

    def _learn(self, rows: int, seconds: float) -> None:
        known = self._seconds.get(rows)
        if known is not None:
            self._seconds[rows] = known + (seconds - known) * _WEIGHT
            return
        plain = self._seconds.get(1, seconds)
        expected = self._extra_seconds(rows)
        if expected > 0:
            self._dearer = max(0.0, seconds - plain) / expected
        self._seconds[rows] = seconds

    def _best_length(self, share: float, most: int) -> int:
        """The length that promises most tokens per second; 0 where one at a time does."""
        plain = self._seconds.get(1)
        if plain is None or share < _LEAST_SHARE:
            return 0
        best, best_gain = 0, _MARGIN
        for length in self._lengths:
            if length > most:
                break
            tokens = sum(share**i for i in range(length + 1))
            gain = tokens * plain / self._expected_seconds(length + 1, plain)
            if gain > best_gain:
                best, best_gain = length, gain
        if most and not best:
            self._num_declined += 1
            if self._num_declined >= _PATIENCE:
                self._num_declined = 0
                self._seconds = {1: plain}
                self._dearer = 1.0
        return best

    def _expected_seconds(self, rows: int, plain: float) -> float:
        known = self._seconds.get(rows)
        return plain + self._dearer * self._extra_seconds(rows) if known is None else known

    def _step_seconds(self, rows: int) -> float:
        plain = self._seconds.get(1)
        return 0.0 if plain is None else self._expected_seconds(rows, plain)

    def _extra_seconds(self, rows: int) -> float:
        """What reading as much of a prompt costs more than reading one token."""
        prefill = self._cost.prefill
        return max(0.0, prefill.seconds(rows) - prefill.seconds(1))
