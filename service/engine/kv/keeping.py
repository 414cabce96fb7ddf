"""Copies of idle conversations on disk, so that an engine that dies has not lost them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from service.engine.kv.cache import Cache
from service.engine.kv.residency import Residency
from service.engine.kv.slots import Slot, Slots

# Written for this purpose alone at most: nobody waits for it, and others need the disk.
_BYTES_PER_SECOND = 32 * 1024 * 1024
# Slots are looked at so often at most.
_LOOK_SECONDS = 0.5


class Keeping:
    """Copies what nobody has gone on with for `after_seconds` (0: never), one at a time.

    Engine thread only. What is in a slot, or in memory, stays there.
    """

    def __init__(
        self,
        slots: Slots,
        residency: Residency,
        cache: Cache,
        after_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._slots = slots
        self._residency = residency
        self._cache = cache
        self._after = after_seconds if cache.outlives else 0.0
        self._clock = clock
        # Since when each slot has been left as it is, by the number of its latest release.
        self._left: dict[int, tuple[int, float]] = {}
        self._done: dict[int, int] = {}
        self._next_look = 0.0
        self._next_copy = 0.0

    def due_in(self) -> float | None:
        """Seconds until there may be something to copy; None: not before something happens."""
        if not self._after:
            return None
        now = self._clock()
        self._look(now)
        dues = [since + self._after for slot, since in self._idle()]
        dues += [since + self._after for since in self._cache.unkept()]
        if not dues:
            return None
        return max(0.0, min(dues) - now, self._next_copy - now)

    def step(self) -> None:
        """Copy one conversation, if one is due and those who are being answered won't notice."""
        if not self._after:
            return
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        self._look(now)
        if now < self._next_copy or self._cache.is_writing:
            return
        slot, since = min(self._idle(), key=lambda one: one[1], default=(None, inf))
        if slot is not None and now - since >= self._after:
            copied = self._residency.copy_out(slot)
            if copied is None:
                return  # another time
            size = copied
            self._done[slot.index] = slot.last_used
        else:
            size = self._cache.keep_one(before=now - self._after)
        self._next_copy = now + size / _BYTES_PER_SECOND

    # --- inside -------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        for slot in self._slots:
            left = self._left.get(slot.index)
            if slot.busy or not slot.last_used:
                self._left.pop(slot.index, None)
            elif left is None or left[0] != slot.last_used:
                self._left[slot.index] = slot.last_used, now

    def _idle(self) -> list[tuple[Slot, float]]:
        """The slots that hold something that has not been copied, and since when."""
        return [
            (self._slots[index], since)
            for index, (last_used, since) in self._left.items()
            if self._done.get(index) != last_used
        ]
