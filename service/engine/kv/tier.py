"""What is worth keeping within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Kept(Protocol):
    """Something of `size` bytes that saves `seconds` when it is there; `rank` belongs to its
    tier."""

    rank: float

    @property
    def size(self) -> int: ...

    @property
    def seconds(self) -> float: ...


K = TypeVar("K", bound=Kept)


class Tier(Generic[K]):
    """Entries by saved seconds per byte and by last use; the least of them goes first.

    Each use raises an entry above the level that the tier has sunk to; so, of equal worth, what
    was not used for longest goes, and what is worth twice as much stays for twice as long.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0
        self._entries: list[K] = []
        self._level = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def add(self, entry: K) -> list[K]:
        """Keep it; returns what had to go for it, which may be `entry` itself."""
        if entry.size > self.budget:
            return [entry]
        self._entries.append(entry)
        self.size += entry.size
        self.use(entry)
        gone = []
        while self.size > self.budget:
            least = min((e for e in self._entries if e is not entry), key=lambda e: e.rank)
            self._level = max(self._level, least.rank)
            self.remove(least)
            gone.append(least)
        self.use(entry)
        return gone

    def use(self, entry: K) -> None:
        """Somebody came back for it."""
        entry.rank = self._level + entry.seconds / max(entry.size, 1)

    def remove(self, entry: K) -> bool:
        """Give it up; whether it was there."""
        if not any(kept is entry for kept in self._entries):
            return False
        self._entries = [kept for kept in self._entries if kept is not entry]
        self.size -= entry.size
        return True
