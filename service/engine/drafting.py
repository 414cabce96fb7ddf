"""When a small model is asked what the large one will say, and for how many tokens.

It is asked where that promises more tokens per second: from how often it was right, from what its
guesses take and from what checking them takes, all as measured. Whoever is always wrong is asked
no more, and given another chance from time to time.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several

from service import log
from service.engine.runner import Drafter, RunnerError
from service.engine.sequence import Sequence

# The share of right guesses that is taken for granted before any was checked.
_HOPE = 0.6
_LEAST_SHARE = 0.3
_WEIGHT = 0.1
# How much quicker it must promise to be.
_MARGIN = 1.08
# Before it was measured, what a guess takes, as a share of a step of the large model; and a token
# that the small model reads, as a share of its guess.
_ASSUMED_GUESS, _ASSUMED_READ = 0.25, 0.05
# An estimate believes quick calls sooner than slow ones: others use the machine, too.
_WEIGHT_OF_SLOW, _WEIGHT_OF_QUICK = 0.1, 0.3
# An answer is expected to go on for so many tokens.
_TYPICAL_REST = 128
# Where it is behind by more, the small model reads before it is asked, so many tokens at least.
_LEAST_READ = 16
# Tokens without it until it is given another chance: at first, and at most.
_FIRST_PATIENCE, _MOST_PATIENCE = 500, 16_000

_log = log.get_logger(__name__)


class Drafting:
    """What the small model proposes for a lonely sequence. Engine thread only.

    `lengths` ascend: so many tokens may be proposed at once.
    """

    def __init__(self, drafter: Drafter, lengths: Several[int], clock: Callable[[], float]) -> None:
        self._drafter: Drafter | None = drafter
        self._lengths = lengths
        self._clock = clock
        self.share = _HOPE
        self._guess_seconds: float | None = None
        self._read_seconds: float | None = None
        self._num_declined = 0
        self._patience = _FIRST_PATIENCE
        # Whose tokens it has read, in which slot, and how many of them.
        self._sequence: Sequence | None = None
        self._slot = -1
        self._num_read = 0
        self._asked: Sequence | None = None

    def draft(self, sequence: Sequence, room: int, seconds_of: Callable[[int], float]) -> list[int]:
        """What comes next, as the small model sees it; nothing where it doesn't pay to ask.

        `room` more tokens fit behind the next one; `seconds_of` rows a step of the large model
        takes so long, 0 where that is not known.
        """
        plain = seconds_of(1)
        if self._drafter is None or room < 1 or plain <= 0:
            return []
        length, gain = self._best_length(room, plain, seconds_of)
        if not length:
            self._decline()
            return []
        try:
            unread = self._unread(sequence, self._drafter)
            if not self._pays_to_read(len(unread), sequence, plain, gain):
                return []
            if self._read_ahead(unread, plain, self._drafter):
                return []
            return self._ask(sequence, unread, length, plain)
        except RunnerError as error:
            _log.error("draft_model_failed", reason=str(error))
            self._drafter = None
            return []

    def stepped(self, num_drafted: int, num_right: int) -> None:
        """Of what `draft` has proposed last, so many first tokens were right."""
        if self._drafter is None or self._asked is None:
            return
        for right in (*(1.0,) * num_right, *(0.0,) * int(num_right < num_drafted)):
            self.share += (right - self.share) * _WEIGHT
        if self.share > _HOPE:
            self._patience = _FIRST_PATIENCE
        # The last of its guesses it has not read itself.
        self._num_read += min(num_right, num_drafted - 1)
        self._drafter.took(self._slot, self._num_read)
        self._sequence, self._asked = self._asked, None

    # --- inside -------------------------------------------------------------------------------

    def _unread(self, sequence: Sequence, drafter: Drafter) -> list[int]:
        slot = sequence.lane.index
        if self._sequence is not sequence or self._slot != slot:
            num_tokens = len(sequence.token_ids)
            self._num_read = num_tokens - drafter.unread(slot, sequence.prefix)
            self._sequence, self._slot = sequence, slot
        return sequence.token_ids[self._num_read :]

    def _read_ahead(self, unread: list[int], plain: float, drafter: Drafter) -> bool:
        """Read a part where it is far behind, for as long as a step takes; whether it did."""
        if len(unread) <= _LEAST_READ:
            return False
        most = _LEAST_READ  # as long as it is not known what reading takes
        if self._read_seconds is not None:
            most = min(max(most, int(plain / self._read_seconds)), len(unread) - 1)
        started = self._clock()
        drafter.read(self._slot, unread[:most])
        self._num_read += most
        self._read_seconds = _nearer(self._read_seconds, (self._clock() - started) / most)
        return True

    def _ask(self, sequence: Sequence, unread: list[int], length: int, plain: float) -> list[int]:
        if self._drafter is None:
            return []
        # Until it is known what was right, nothing is known of what it has read.
        self._sequence, self._asked = None, None
        started = self._clock()
        guess = self._drafter.guess(self._slot, unread, length)
        if guess:
            seconds = self._clock() - started
            catching_up = min(self._reading(len(unread) - 1, plain), seconds / 2)
            each = (seconds - catching_up) / len(guess)
            self._guess_seconds = _nearer(self._guess_seconds, each)
            self._num_read += len(unread)
            self._asked = sequence
        return guess

    def _best_length(
        self, room: int, plain: float, seconds_of: Callable[[int], float]
    ) -> tuple[int, float]:
        """The length that promises most tokens per second, and how many times as many; 0 where
        that is not enough."""
        best, best_gain = 0, _MARGIN
        if self.share < _LEAST_SHARE:
            return best, best_gain
        for length in self._lengths:
            if length > room:
                break
            tokens = sum(self.share**i for i in range(length + 1))
            seconds = seconds_of(length + 1) + length * self._guess(plain)
            if tokens * plain > best_gain * seconds:
                best, best_gain = length, tokens * plain / seconds
        return best, best_gain

    def _pays_to_read(self, num_unread: int, sequence: Sequence, plain: float, gain: float) -> bool:
        rest = min(_TYPICAL_REST, sequence.max_tokens - sequence.num_generated)
        saved = rest * plain * (1 - 1 / gain)
        return num_unread <= _LEAST_READ or self._reading(num_unread, plain) < saved

    def _decline(self) -> None:
        self._num_declined += 1
        if self._num_declined >= self._patience:
            self._num_declined = 0
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
            self.share = max(self.share, _HOPE)
            self._guess_seconds = None

    def _reading(self, num_tokens: int, plain: float) -> float:
        each = self._read_seconds
        return num_tokens * (_ASSUMED_READ * self._guess(plain) if each is None else each)

    def _guess(self, plain: float) -> float:
        return _ASSUMED_GUESS * plain if self._guess_seconds is None else self._guess_seconds


def _nearer(known: float | None, seen: float) -> float:
    if known is None:
        return seen
    return known + (seen - known) * (_WEIGHT_OF_SLOW if seen > known else _WEIGHT_OF_QUICK)
