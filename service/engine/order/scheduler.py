"""What runs next. Decisions only: nothing here has an effect on the model or on a socket."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, replace
from itertools import takewhile

from service.domain.errors import QueueFull
from service.engine.kv.slots import Placement, Slot, Slots
from service.engine.order.cost import CostModel
from service.engine.order.fairness import WRITTEN_TOKEN, Shares, Waiting
from service.engine.runner import DecodeRow
from service.engine.sequence import Key, Sequence

# So much of the queue no single key may take.
_ROOM_FOR_OTHERS = 0.25


@dataclass(slots=True)
class Scheduler:
    """Who waits, who holds a slot, and what each turn of the engine should do."""

    slots: Slots
    cost: CostModel
    max_waiting: int
    shares: Shares = field(default_factory=Shares)
    waiting: Waiting = field(init=False)
    running: list[Sequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waiting = Waiting(self.shares)

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    def find(self, key: Key) -> Sequence | None:
        return next((s for s in self.everyone() if s.job.key == key), None)

    def everyone(self) -> list[Sequence]:
        return [*self.running, *self.waiting]

    # --- coming and going --------------------------------------------------------------------
    def enqueue(self, sequence: Sequence) -> int:
        """Let it wait for a slot; returns how many are ahead of it.

        Raises `QueueFull` with a time to come back when that many may not wait, or not that many of
        one key: some room is left to the others.
        """
        num_ahead = max(0, len(self.waiting) - self.slots.num_free)
        if len(self.waiting) >= self.max_waiting + self.slots.num_free:
            raise QueueFull(
                f"{len(self.waiting)} requests are waiting, and no more than {self.max_waiting} "
                "may; try again later.",
                retry_after_seconds=self.retry_after(),
            )
        of_key = self.waiting.num_of(sequence.fair_key)
        most_of_key = self.max_waiting - int(self.max_waiting * _ROOM_FOR_OTHERS)
        if of_key >= most_of_key + self.slots.num_free:
            raise QueueFull(
                f"{of_key} requests of the same access are waiting, and no more than "
                f"{most_of_key} of {self.max_waiting} may; try again later.",
                retry_after_seconds=self.retry_after(),
            )
        sequence.queued = len(self.waiting) >= self.slots.num_free
        self.shares.enter(sequence.fair_key)
        self.waiting.push(sequence)
        return num_ahead

    def retry_after(self) -> float:
        return self.cost.seconds_until_slot(len(self.waiting), self.slots.num_slots)

    def admission(self) -> tuple[Sequence, Placement] | None:
        """Who is next, and where it should go; None when nobody waits or no slot is free."""
        if not self.waiting or not self.slots.num_free:
            return None
        first = self.waiting.peek()
        place = self.place(first)
        return None if place is None else (first, place)

    def place(self, sequence: Sequence) -> Placement | None:
        """Where it should go; None when no slot is free."""
        return self.slots.place(
            sequence.token_ids, sequence.cache_key, self.cost.split_tokens, sequence.num_shared
        )

    def admit(self, sequence: Sequence) -> None:
        """It waits no more; its slot is about to be made ready."""
        self.waiting.remove(sequence)
        self.running.append(sequence)

    def leave(self, sequence: Sequence) -> None:
        """It is over, wherever it was."""
        if sequence.slot is None:
            self.waiting.remove(sequence)
        else:
            self.running.remove(sequence)
        self.shares.leave(sequence.fair_key)

    def swap(self) -> tuple[Sequence, Sequence] | None:
        """Who waits and must get a slot, and who must give up its own for that; None: nobody.

        Batch work makes room for anybody interactive. A key that has no slot at all gets one of
        the key that has had most, if that one has several: not the slots' long answers decide how
        long a newcomer waits. Of those who could yield the one with least to read again does.
        """
        if not self.waiting or self.slots.num_free:
            return None
        present = {s.fair_key for s in self.running}
        able = [s for s in self.running if s.in_batch]
        for first in self.waiting.heads():
            if first.in_batch:
                return None
            if not able and first.fair_key not in present:
                able = self._of_the_richest(first)
            if able:
                yields = min(able, key=lambda s: (s.num_computed - s.num_reused, -s.admitted_at))
                return first, yields
        return None

    def _of_the_richest(self, first: Sequence) -> list[Sequence]:
        held: dict[str, list[Sequence]] = {}
        for sequence in self.running:
            held.setdefault(sequence.fair_key, []).append(sequence)
        rich = [key for key, sequences in held.items() if len(sequences) > 1]
        richest = max(rich, key=self.shares.served, default=None)
        if richest is None or self.shares.served(richest) < self.shares.served(first.fair_key):
            return []
        return held[richest]

    def put_back(self, sequence: Sequence) -> Slot:
        """It yields: it waits again, first of its key. Returns the slot that it had."""
        self.running.remove(sequence)
        self.waiting.push_back(sequence)
        return sequence.vacate()

    # --- decoding ----------------------------------------------------------------------------
    def generating(self) -> list[Sequence]:
        """Everyone who gets a token in the next step, in the order of their slots.

        Batch work stands still while a prompt of somebody interactive is being read.
        """
        ready = [sequence for sequence in self.running if sequence.num_pending == 1]
        if any(s.in_batch for s in ready) and any(
            s.num_pending > 1 and not s.in_batch for s in self.running
        ):
            ready = [s for s in ready if not s.in_batch]
        ready.sort(key=lambda sequence: sequence.lane.index)
        return ready

    def decoded(self, sequences: Several[Sequence]) -> None:
        """Each of these has got a token."""
        for sequence in sequences:
            self.shares.charge(sequence, WRITTEN_TOKEN)


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """One decode call: its rows in ascending order of slots, the row of each sequence, the free
    slots that got a row for nothing (to be trimmed afterwards), and in how many runs of neighbours
    the slots are."""

    rows: list[DecodeRow]
    sampled: list[tuple[int, Sequence]]
    padded: list[Slot]
    num_runs: int

    def with_draft(self, draft: list[int]) -> DecodePlan:
        """Check these too, as what follows the last row."""
        last = self.rows[-1]
        places = enumerate(draft, last.position + 1)
        guesses = [DecodeRow(last.slot, place, token_id) for place, token_id in places]
        return replace(self, rows=[*self.rows, *guesses])


def plan_decode(
    sequences: list[Sequence],
    slots: Slots,
    padding_pays: Callable[[int], bool],
    *,
    to_buckets: bool = False,
) -> DecodePlan:
    """Rows for `sequences` (ascending by slot), with holes between them filled where it pays.

    llama.cpp computes an ascending run of neighbouring slots in one go, and splits a call at every
    hole. Only a free slot with room can fill one: a row at its end, forgotten right after. With
    `to_buckets` one run is filled up in the same way to 1, 2, 4, 8, … rows, where the slots beside
    it allow it.
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
            if padding_pays(len(hole)) and all(_can_pad(s) for s in hole):
                rows += [DecodeRow(s.index, s.num_tokens, sequence.token_ids[-1]) for s in hole]
                padded += hole
            else:
                num_runs += 1
        sampled.append((len(rows), sequence))
        rows.append(DecodeRow(index, sequence.num_computed, sequence.token_ids[-1]))
        previous = index
    plan = DecodePlan(rows, sampled, padded, num_runs)
    return _in_bucket(plan, slots) if to_buckets and num_runs == 1 else plan


def _in_bucket(plan: DecodePlan, slots: Slots) -> DecodePlan:
    """With as many rows as the next bucket has, or as it is where not that many fit beside it."""
    rows = plan.rows
    missing = min(1 << (len(rows) - 1).bit_length(), slots.num_slots) - len(rows)
    behind = list(takewhile(_can_pad, (slots[i] for i in range(rows[-1].slot + 1, len(slots)))))
    before = list(takewhile(_can_pad, (slots[i] for i in range(rows[0].slot - 1, -1, -1))))
    behind = behind[:missing]
    before = before[: missing - len(behind)][::-1]
    if not missing or len(behind) + len(before) < missing:
        return plan
    token_id = rows[0].token_id
    padding = [
        [DecodeRow(s.index, s.num_tokens, token_id) for s in side] for side in (before, behind)
    ]
    return replace(
        plan,
        rows=[*padding[0], *rows, *padding[1]],
        sampled=[(row + len(before), sequence) for row, sequence in plan.sampled],
        padded=[*plan.padded, *before, *behind],
    )


def _can_pad(slot: Slot) -> bool:
    return not slot.busy and slot.room > 0
