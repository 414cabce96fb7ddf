"""The lanes of the KV cache, what they hold, and which one a prompt should go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.engine.kv.parking import Parked, Parking
from service.engine.kv.prefix import Prefix, TokenArray
from service.engine.kv.transcripts import Transcript

# A fork copies a whole lane: about what reading this many tokens costs.
FORK_TOKENS = 8
# How much less a cached conversation is worth for each one that was used after it.
WORTH_DECAY = 0.25


@dataclass(eq=False, slots=True)
class Slot:
    """One lane: a llama.cpp sequence id. `num_tokens` of `tokens` are resident there.

    What is resident was computed under `cache_key`, and must not be reused under another but for
    the first `num_shared` tokens, which are everybody's. `transcript` tells what was said in it
    last, if that has come to its end. `last_used` counts releases: the higher,
    the more recent.
    """

    index: int
    tokens: TokenArray
    num_tokens: int = 0
    cache_key: str = ""
    num_shared: int = 0
    transcript: Transcript | None = None
    busy: bool = False
    last_used: int = 0

    @property
    def room(self) -> int:
        return len(self.tokens) - self.num_tokens

    @property
    def held(self) -> Prefix:
        """What is resident, as something that prompts may begin with."""
        return Prefix(self.tokens[: self.num_tokens], self.cache_key, self.num_shared)

    def read(self, token_ids: Sequence[int]) -> None:
        """These were computed, behind what is resident."""
        end = self.num_tokens + len(token_ids)
        self.tokens[self.num_tokens : end] = token_ids
        self.num_tokens = end

    def read_one(self, token_id: int) -> None:
        """`read` for one token, without the cost of an array."""
        self.tokens[self.num_tokens] = token_id
        self.num_tokens += 1

    def lost(self, kept: int) -> int:
        """How many tokens would be missed if only the first `kept` stayed.

        The next turn of a chat rarely repeats the last answer to the letter: that is no loss.
        """
        tolerated = kept + kept // 4 + 16 if kept else 0
        return max(0, self.num_tokens - tolerated)


@dataclass(frozen=True, slots=True)
class Placement:
    """Put a prompt into `slot`, where the first `length` tokens of `source` (maybe the slot
    itself) are kept, or those of `parked`."""

    slot: Slot
    source: Slot
    length: int
    parked: Parked | None = None


@dataclass(eq=False, slots=True)
class Slots:
    """All lanes of one context. Pure bookkeeping: the runner is called elsewhere."""

    num_slots: int
    slot_length: int
    parking: Parking | None = None
    _slots: list[Slot] = field(init=False)
    _num_releases: int = 0

    def __post_init__(self) -> None:
        self._slots = [
            Slot(index, np.zeros(self.slot_length, dtype=np.int32))
            for index in range(self.num_slots)
        ]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

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
        self,
        token_ids: Sequence[int],
        cache_key: str,
        split_tokens: float = 0.0,
        num_shared: int = 0,
    ) -> Placement | None:
        """The cheapest way to get a prompt into a free slot, or None when all are busy.

        Everything is counted in tokens that would have to be read: those of the prompt that are
        not there yet; those of another conversation that would be overwritten, discounted by how
        long nobody used it; a copy from another slot or from what is parked; and `split_tokens`
        for each run that the busy slots fall into, because llama.cpp computes only neighbours in
        one go.
        """
        if not self.num_free:
            return None
        prompt = Prefix(np.asarray(token_ids, dtype=np.int32), cache_key, num_shared)
        sources = _Sources(self._slots, prompt, self.parking)
        worth = self._worth()
        options = [
            (cost + split_tokens * self._num_runs_with(slot.index), slot.last_used, placement)
            for slot in self._slots
            if not slot.busy
            for cost, placement in sources.ways_into(slot, worth[slot.index])
        ]
        return min(options, key=lambda o: (o[0], self._distance(o[2].slot.index), o[1]))[2]

    def better_source(
        self, slot: Slot, token_ids: Sequence[int], num_shared: int = 0
    ) -> Placement | None:
        """Another slot that holds so much more of the prompt in this one that a copy pays."""
        prompt = Prefix(np.asarray(token_ids, dtype=np.int32), slot.cache_key, num_shared)
        others = [s for s in self._slots if s is not slot]
        best = max(others, key=lambda s: s.held.reusable_for(prompt), default=slot)
        length = best.held.reusable_for(prompt)
        if best is slot or length <= slot.num_tokens + FORK_TOKENS:
            return None
        return Placement(slot, best, length)

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


class _Sources:
    """Where the beginning of one prompt can be had from."""

    def __init__(self, slots: list[Slot], prompt: Prefix, parking: Parking | None) -> None:
        self._here = [slot.held.reusable_for(prompt) for slot in slots]
        self._best = max(slots, key=lambda slot: self._here[slot.index])
        self._parked = parking.best_for(prompt) if parking is not None else None

    def ways_into(self, slot: Slot, worth: float) -> Iterator[tuple[float, Placement]]:
        """What each costs, where a token in the slot that is overwritten is worth so many."""
        here = self._here[slot.index]
        yield worth * slot.lost(here) - here, Placement(slot, slot, here)
        best = self._here[self._best.index]
        replaced = worth * slot.num_tokens + FORK_TOKENS
        if self._best is not slot and best > here + FORK_TOKENS:
            yield replaced - best, Placement(slot, self._best, best)
        if self._parked is not None and self._parked[1] > max(here, best) + FORK_TOKENS:
            parked, length = self._parked
            yield replaced - length, Placement(slot, slot, length, parked)
