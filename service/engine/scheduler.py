"""What runs next. Decisions only: nothing here has an effect on the model or on a socket."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from service.domain.errors import QueueFull
from service.engine.cost import CostModel
from service.engine.runner import DecodeRow
from service.engine.sequence import Key, Sequence
from service.engine.slots import Placement, Slot, Slots


class Waiting:
    """Sequences without a slot: first in, first out per cache key, the keys taking turns."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[Sequence]:
        return (sequence for lane in self._lanes.values() for sequence in lane)

    def push(self, sequence: Sequence) -> None:
        self._lanes.setdefault(sequence.cache_key, deque()).append(sequence)
        self._num += 1

    def peek(self) -> Sequence:
        return next(iter(self._lanes.values()))[0]

    def pop(self) -> Sequence:
        """The next one; its cache key goes to the end of the line."""
        key, lane = next(iter(self._lanes.items()))
        sequence = lane.popleft()
        self._num -= 1
        if lane:
            self._lanes.move_to_end(key)
        else:
            del self._lanes[key]
        return sequence

    def remove(self, sequence: Sequence) -> None:
        lane = self._lanes[sequence.cache_key]
        lane.remove(sequence)
        self._num -= 1
        if not lane:
            del self._lanes[sequence.cache_key]


@dataclass(slots=True)
class Scheduler:
    """Who waits, who holds a slot, and what each turn of the engine should do."""

    slots: Slots
    cost: CostModel
    max_waiting: int
    waiting: Waiting = field(default_factory=Waiting)
    running: list[Sequence] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def find(self, key: Key) -> Sequence | None:
        return next((s for s in self.everyone() if s.job.key == key), None)

    def everyone(self) -> list[Sequence]:
        return [*self.running, *self.waiting]

    def enqueue(self, sequence: Sequence) -> int:
        """Let it wait for a slot; returns how many are ahead of it.

        Raises `QueueFull` with a time to come back when that many may not wait.
        """
        num_ahead = max(0, len(self.waiting) - self.slots.num_free)
        if len(self.waiting) >= self.max_waiting + self.slots.num_free:
            raise QueueFull(
                f"{len(self.waiting)} requests are waiting, and no more than {self.max_waiting} "
                "may; try again later.",
                retry_after_seconds=self.retry_after(),
            )
        self.waiting.push(sequence)
        return num_ahead

    def retry_after(self) -> float:
        return self.cost.seconds_until_slot(len(self.waiting), self.slots.num_slots)

    def admission(self) -> Placement | None:
        """Where the first in line should go; None when nobody waits or no slot is free."""
        if not self.waiting:
            return None
        first = self.waiting.peek()
        return self.slots.place(first.token_ids, first.cache_key, self.cost.split_tokens)

    def generating(self) -> list[Sequence]:
        """Everyone whose prompt has been read, in the order of their slots."""
        ready = [sequence for sequence in self.running if sequence.num_pending == 1]
        ready.sort(key=lambda sequence: sequence.lane.index)
        return ready

    def reader(self) -> Sequence | None:
        """Whose prompt to read now: the earliest admitted that has not been read to the end.

        One prompt after the other gives each its first token sooner than all side by side.
        """
        return next((s for s in self.running if s.num_pending > 1), None)

    def num_to_read(self, reader: Sequence) -> int:
        """How many tokens of its prompt to read in one call; 0 when only the last is left."""
        num_decoding = sum(s.num_pending == 1 for s in self.running)
        return min(self.cost.chunk(num_decoding), reader.num_pending - 1)


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """One decode call: its rows in ascending order of slots, the row of each sequence, the free
    slots that got a row for nothing (to be trimmed afterwards), and in how many runs of neighbours
    the slots are."""

    rows: list[DecodeRow]
    sampled: list[tuple[int, Sequence]]
    padded: list[Slot]
    num_runs: int


def plan_decode(
    sequences: list[Sequence], slots: Slots, padding_pays: Callable[[int], bool]
) -> DecodePlan:
    """Rows for `sequences` (ascending by slot), with holes between them filled where it pays.

    llama.cpp computes an ascending run of neighbouring slots in one go, and splits a call at every
    hole. Only a free slot with room can fill one: a row at its end, forgotten right after.
    """
    rows: list[DecodeRow] = []
    sampled: list[tuple[int, Sequence]] = []
    padded: list[Slot] = []
    num_runs = 1
    previous = -1
    for sequence in sequences:
        index = sequence.lane.index
        if rows and index > previous + 1:
            hole = [slots[i] for i in range(previous + 1, index)]
            if padding_pays(len(hole)) and all(not s.busy and s.room > 0 for s in hole):
                rows += [DecodeRow(s.index, s.num_tokens, sequence.token_ids[-1]) for s in hole]
                padded += hole
            else:
                num_runs += 1
        sampled.append((len(rows), sequence))
        rows.append(DecodeRow(index, sequence.num_computed, sequence.token_ids[-1]))
        previous = index
    return DecodePlan(rows, sampled, padded, num_runs)
