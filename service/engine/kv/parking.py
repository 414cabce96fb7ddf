"""Conversations that had to leave their slots, kept in memory for who comes back to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from service import metrics
from service.engine.kv.prefix import Prefix
from service.engine.kv.tier import Tier
from service.engine.kv.transcripts import Transcript
from service.engine.runner import State

# Less than this is read again sooner than it is worth a place.
MIN_TOKENS = 64


@dataclass(eq=False, slots=True)
class Parked:
    """What a slot held: `state` as the runner saved it, for the tokens of `prefix`.

    The prefix is under the tag of its cache key, not under the key. `seconds` is what reading the
    tokens took. `tier` says where it comes from, `since` when it was parked, and `is_kept` whether
    there is a copy of it on disk.
    """

    prefix: Prefix
    state: State
    seconds: float
    transcript: Transcript | None = None
    tier: str = "memory"
    since: float = 0.0
    is_kept: bool = False
    rank: float = 0.0

    @property
    def size(self) -> int:
        return int(self.state.nbytes)


class Parking:
    """The conversations in memory, within a budget. Any thread.

    `tag` makes of a cache key what is kept of it; `evict` gets what had to go. Within one tag what
    is the beginning of another conversation is not kept beside it.
    """

    def __init__(
        self, budget: int, tag: Callable[[str], str], evict: Callable[[Parked], None]
    ) -> None:
        self.tag = tag
        self._evict = evict
        self._tier: Tier[Parked] = Tier(budget)
        self._lock = threading.Lock()

    @property
    def room(self) -> int:
        """The largest state that can be parked, in bytes."""
        return self._tier.budget

    def tagged(self, prefix: Prefix) -> Prefix:
        """The prefix as it is kept here."""
        return Prefix(prefix.tokens, self.tag(prefix.cache_key), prefix.num_shared)

    def best_for(self, prompt: Prefix) -> tuple[Parked, int] | None:
        """What has most of the prompt's beginning, and how much; None when nothing has any."""
        if not len(self._tier):
            return None
        wanted = self.tagged(prompt)
        with self._lock:
            found = [(parked.prefix.reusable_for(wanted), parked) for parked in self._tier]
        length, parked = max(found, key=lambda one: one[0], default=(0, None))
        return (parked, length) if parked is not None and length else None

    def put(self, parked: Parked) -> None:
        """Keep it as long as there is room."""
        with self._lock:
            for other in [o for o in self._tier if parked.prefix.continues(o.prefix)]:
                self._tier.remove(other)
            gone = self._tier.add(parked)
            self._publish()
        for one in gone:
            self._evict(one)

    def use(self, parked: Parked, length: int) -> None:
        """The first `length` tokens of it are in a slot now. All of it goes; of a part, the rest
        may be wanted by others."""
        with self._lock:
            if length >= len(parked.prefix.tokens):
                self._tier.remove(parked)
            else:
                self._tier.use(parked)
            self._publish()

    def drop(self, parked: Parked) -> None:
        """It is of no use."""
        with self._lock:
            self._tier.remove(parked)
            self._publish()

    def covers(self, held: Prefix) -> bool:
        """Whether all of this is here already."""
        wanted = self.tagged(held)
        with self._lock:
            return any(parked.prefix.continues(wanted) for parked in self._tier)

    def unkept(self) -> list[Parked]:
        """Of what there is no copy on disk."""
        with self._lock:
            return [parked for parked in self._tier if not parked.is_kept]

    def empty(self) -> Iterable[Parked]:
        """Everything, what is worth most first; nothing is kept."""
        with self._lock:
            parked = sorted(self._tier, key=lambda one: -one.rank)
            for one in parked:
                self._tier.remove(one)
            self._publish()
        return parked

    def _publish(self) -> None:
        metrics.PARKED_BYTES.labels("memory").set(self._tier.size)
        metrics.PARKED_CONVERSATIONS.labels("memory").set(len(self._tier))
