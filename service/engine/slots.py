"""The lanes of the KV cache, what they hold, and which one a prompt should go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int32]

# A fork copies a whole lane: about what reading this many tokens costs.
FORK_TOKENS = 8
# How much less a cached conversation is worth for each one that was used after it.
WORTH_DECAY = 0.25


@dataclass(eq=False, slots=True)
class Slot:
    """One lane: a llama.cpp sequence id. `num_tokens` of `tokens` are resident there.

    What is resident was computed under `cache_key`, and must not be reused under another.
    `last_used` counts releases: the higher, the more recent.
    """

    index: int
    tokens: TokenArray
    num_tokens: int = 0
    cache_key: str = ""
    busy: bool = False
    last_used: int = 0

    @property
    def room(self) -> int:
        return len(self.tokens) - self.num_tokens

    def read(self, token_ids: Sequence[int]) -> None:
        """These were computed, behind what is resident."""
        end = self.num_tokens + len(token_ids)
        self.tokens[self.num_tokens : end] = token_ids
        self.num_tokens = end

    def read_one(self, token_id: int) -> None:
        """`read` for one token, without the cost of an array."""
        self.tokens[self.num_tokens] = token_id
        self.num_tokens += 1

    def shared_with(self, prompt: TokenArray) -> int:
        """How many first tokens of `prompt` are resident, all but its last at most."""
        length = min(self.num_tokens, len(prompt) - 1)
        if length <= 0:
            return 0
        differs = self.tokens[:length] != prompt[:length]
        first = int(differs.argmax())
        return first if differs[first] else length


@dataclass(frozen=True, slots=True)
class Placement:
    """Put a prompt into `slot`, where the first `length` tokens of `source` (maybe the slot
    itself) are kept."""

    slot: Slot
    source: Slot
    length: int


@dataclass(eq=False, slots=True)
class Slots:
    """All lanes of one context. Pure bookkeeping: the runner is called elsewhere."""

    num_slots: int
    slot_length: int
    _slots: list[Slot] = field(init=False)
    _num_releases: int = 0

    def __post_init__(self) -> None:
        self._slots = [
            Slot(index, np.zeros(self.slot_length, dtype=np.int32))
            for index in range(self.num_slots)
        ]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, index: int) -> Slot:
        return self._slots[index]

    @property
    def num_free(self) -> int:
        return sum(not slot.busy for slot in self._slots)

    def release(self, slot: Slot) -> None:
        """Its conversation is over for now; what was read stays as cache."""
        self._num_releases += 1
        slot.busy = False
        slot.last_used = self._num_releases

    def place(
        self, token_ids: Sequence[int], cache_key: str, split_tokens: float = 0.0
    ) -> Placement | None:
        """The cheapest way to get a prompt into a free slot, or None when all are busy.

        Everything is counted in tokens that would have to be read: those of the prompt that are
        not there yet; those of another conversation that would be overwritten, discounted by how
        long nobody used it; a copy from another slot; and `split_tokens` for each run that the
        busy slots fall into, because llama.cpp computes only neighbours in one go.
        """
        prompt = np.asarray(token_ids, dtype=np.int32)
        shared = {
            slot.index: slot.shared_with(prompt)
            for slot in self._slots
            if slot.cache_key == cache_key
        }
        best = max(shared, key=lambda index: shared[index], default=0)
        worth = self._worth()
        options = [
            (cost + split_tokens * self._num_runs_with(slot.index), slot.last_used, placement)
            for slot in self._slots
            if not slot.busy
            for cost, placement in self._ways_into(slot, shared, best, worth[slot.index])
        ]
        if not options:
            return None
        return min(options, key=lambda o: (o[0], self._distance(o[2].slot.index), o[1]))[2]

    def better_source(self, slot: Slot, token_ids: Sequence[int]) -> Placement | None:
        """Another slot of the same key that holds so much more of this prompt that a copy pays."""
        prompt = np.asarray(token_ids, dtype=np.int32)
        others = [s for s in self._slots if s is not slot and s.cache_key == slot.cache_key]
        best = max(others, key=lambda s: s.shared_with(prompt), default=slot)
        length = best.shared_with(prompt)
        if best is slot or length <= slot.num_tokens + FORK_TOKENS:
            return None
        return Placement(slot, best, length)

    def _ways_into(
        self, slot: Slot, shared: dict[int, int], best: int, worth: float
    ) -> Iterator[tuple[float, Placement]]:
        here = shared.get(slot.index, 0)
        # The next turn of a chat rarely repeats the last answer to the letter: that is no loss.
        tolerated = here + here // 4 + 16 if here else 0
        lost = max(0, slot.num_tokens - tolerated)
        yield worth * lost - here, Placement(slot, slot, here)
        if best != slot.index and shared.get(best, 0) > here + FORK_TOKENS:
            there = shared[best]
            cost = worth * slot.num_tokens + FORK_TOKENS - there
            yield cost, Placement(slot, self._slots[best], there)

    def _worth(self) -> dict[int, float]:
        recent_first = sorted(self._slots, key=lambda slot: -slot.last_used)
        return {slot.index: WORTH_DECAY**rank for rank, slot in enumerate(recent_first)}

    def _num_runs_with(self, index: int) -> int:
        """Runs of neighbours among the busy slots, once slot `index` is one of them."""
        busy = [slot.busy or slot.index == index for slot in self._slots]
        return sum(now and not before for before, now in zip([False, *busy], busy, strict=False))

    def _distance(self, index: int) -> int:
        """How far slot `index` is from the busy ones; from the first slot where none is busy."""
        return min((abs(slot.index - index) for slot in self._slots if slot.busy), default=index)
