"""Whose prompt is read next, and how much of it in one call. Decisions only.

Prompts are read one after the other: that gives each its first token sooner than all side by side.
Several go into one call only where the call is so much quicker by it that everybody gains.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.cost import CostModel
from service.engine.scheduler import Scheduler
from service.engine.sequence import Sequence

# What each further slot of a key counts, in tokens that it has had.
_SLOT_TOKENS = 128.0
# The share of the reading rate by which waiting makes a long prompt as urgent as a short one.
_AGING = 0.5
# Prompts that differ by less are taken in the order of their slots, which keeps them neighbours.
_SAME_LENGTH = 64
# Prompts with more than this in common are not read jointly: one is read, the others copy.
_WORTH_COPYING = 16
# Being read jointly must be worth that much before anybody waits for another's prompt.
_MARGIN = 0.95


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `count` tokens of a sequence, to be read in the call at hand."""

    sequence: Sequence
    count: int


def in_order(scheduler: Scheduler, now: float) -> list[Sequence]:
    """Everyone with a slot whose prompt has yet to be read, the most urgent first.

    Batch work comes last. Otherwise it is the shortest that goes first, but what its key has had
    counts against it, and the time it has waited for it.
    """
    readers = [s for s in scheduler.running if s.num_pending > 1]
    if len(readers) < 2:
        return readers
    held: dict[str, int] = {}
    for sequence in scheduler.running:
        held[sequence.fair_key] = held.get(sequence.fair_key, 0) + 1
    least = min(scheduler.shares.served(key) for key in held)
    rate = scheduler.cost.reading_rate()

    def urgency(sequence: Sequence) -> tuple[bool, int, int]:
        key = sequence.fair_key
        tokens = sequence.num_pending + (held[key] - 1) * _SLOT_TOKENS
        tokens += scheduler.shares.served(key) - least
        tokens -= (now - sequence.job.arrived) * rate * _AGING
        return (sequence.in_batch, int(tokens // _SAME_LENGTH), sequence.lane.index)

    return sorted(readers, key=urgency)


def next_call(scheduler: Scheduler, ordered: list[Sequence]) -> list[Chunk]:
    """What to read in one call, of prompts in the order given; nothing where there are none."""
    ordered = [s for s in ordered if s.num_pending > 1]
    if not ordered:
        return []
    leader, cost = ordered[0], scheduler.cost
    left, start = leader.num_pending - 1, leader.num_computed
    streams = [s for s in scheduler.running if s.num_pending == 1]
    if not leader.in_batch:
        streams = [s for s in streams if not s.in_batch]
    if streams:
        owed = len(streams) > 1 and all(s.fair_key != leader.fair_key for s in streams)
        rows = cost.rows_beside(len(streams), start, owed=owed)
        return [Chunk(leader, min(rows, left))]
    joint = _jointly(_neighbours(leader, ordered), cost) if cost.prefill.known else []
    return joint or [Chunk(leader, cost.rows_alone(left, start))]


def _jointly(group: list[Sequence], cost: CostModel) -> list[Chunk]:
    """The first of `group` in one call, as many as bring everybody's first token soonest on
    average; nothing where that is one alone.

    With `n` prompts that take `t` seconds each, in groups, half of the others go before each.
    """
    best: list[Chunk] = []
    alone = cost.reading_seconds(group[0].num_pending - 1, group[0].num_computed)
    least = alone * (len(group) + 1) * _MARGIN
    for num in range(2, len(group) + 1):
        members = group[:num]
        count = min(*(s.num_pending - 1 for s in members), cost.max_batch_tokens // num)
        rows = num * count
        if not count or (cost.bulk_rows is not None and rows < cost.bulk_rows):
            continue
        longest = max(s.num_pending - 1 for s in members)
        start = sum(s.num_computed for s in members) / num
        each = cost.call_seconds(rows, start) / rows * longest
        if each * (len(group) + num) < least:
            least = each * (len(group) + num)
            best = [Chunk(s, count) for s in sorted(members, key=lambda s: s.lane.index)]
    return best


def _neighbours(leader: Sequence, ordered: list[Sequence]) -> list[Sequence]:
    """The leader, and those who could be read with it: in slots next to it, in the same class, with
    nothing in common that one could copy from another."""
    by_slot = {s.lane.index: s for s in ordered if s.in_batch == leader.in_batch}
    index = leader.lane.index
    reachable = [leader]
    for step in (1, -1):
        at = index + step
        while at in by_slot and not _share(by_slot[at], reachable):
            reachable.append(by_slot[at])
            at += step
    return reachable


def _share(sequence: Sequence, others: list[Sequence]) -> bool:
    return any(
        other.cache_key == sequence.cache_key and _in_common(sequence, other) for other in others
    )


def _in_common(one: Sequence, other: Sequence) -> bool:
    """Whether both begin with something that neither has got yet, and that is worth copying."""
    end = max(one.num_computed, other.num_computed) + _WORTH_COPYING
    if len(one.token_ids) <= end or len(other.token_ids) <= end:
        return False
    return one.token_ids[:end] == other.token_ids[:end]
