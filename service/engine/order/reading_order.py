"""Whose prompt is read next, and how much of it in one call. Decisions only.

Prompts are read one after the other: that gives each its first token sooner than all side by side.
Several go into one call only where the call is so much quicker by it that everybody gains.

A stream that was there before a prompt came goes on as if it hardly had, and the prompt is read in
small calls between two of its tokens. That has its price: a small call costs more per token. So
those who come together share what there is: who got a first token before the others of its company
waits for its second until the call for the next of them is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.order.cost import SMALL_CALL_ROWS, CostModel
from service.engine.order.scheduler import Scheduler
from service.engine.sequence import Sequence

# What each further slot of a key counts, in tokens that it has had.
_SLOT_TOKENS = 128.0
# The share of the reading rate by which waiting makes a long prompt as urgent as a short one.
_AGING = 0.5
# Prompts that differ by less are taken in the order of their slots, which keeps them neighbours.
_SAME_LENGTH = 32
# Prompts with more than this in common are not read jointly: one is read, the others copy.
_WORTH_COPYING = 16
# A prompt that much longer than the first is not read with it.
_SIMILAR = 2
_NEARLY = 1.01
# What it counts that all are read later, beside that each gets its first token later.
_ENDS = 0.5
# A prompt with so much to read is done soon: it may take of the streams what they can spare.
_SHORT = 256


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `count` tokens of a sequence, to be read in the call at hand."""

    sequence: Sequence
    count: int


def in_order(scheduler: Scheduler) -> list[Sequence]:
    """Everyone with a slot whose prompt has yet to be read, the most urgent first.

    Batch work comes last. Otherwise it is the shortest that goes first, but what its key has had
    counts against it, and the time that it has waited longer than others for it.
    """
    readers = [s for s in scheduler.running if s.num_pending > 1]
    if len(readers) < 2:
        return readers
    debts = _debts(scheduler)
    rate = scheduler.cost.reading_rate()
    oldest = min(sequence.admitted_at for sequence in readers)

    def urgency(sequence: Sequence) -> tuple[bool, int, int]:
        later = (sequence.admitted_at - oldest) * rate * _AGING
        tokens = sequence.num_pending + debts[sequence.fair_key] + later
        return (sequence.in_batch, int(tokens // _SAME_LENGTH), sequence.lane.index)

    return sorted(readers, key=urgency)


def _debts(scheduler: Scheduler) -> dict[str, float]:
    """What each key with a slot has had, in tokens, beyond the one that has had least; each further
    slot counts."""
    held: dict[str, int] = {}
    for sequence in scheduler.running:
        held[sequence.fair_key] = held.get(sequence.fair_key, 0) + 1
    served = scheduler.shares.served
    least = min(served(key) for key in held)
    return {key: served(key) - least + (num - 1) * _SLOT_TOKENS for key, num in held.items()}


def next_call(scheduler: Scheduler, ordered: list[Sequence]) -> list[Chunk]:
    """What to read in one call, of prompts in the order given; nothing where there are none."""
    ordered = [s for s in ordered if s.num_pending > 1]
    if not ordered:
        return []
    leader, cost = ordered[0], scheduler.cost
    left, start = leader.num_pending, leader.num_computed
    streams = [s for s in scheduler.running if s.num_pending == 1]
    if not leader.in_batch:
        streams = [s for s in streams if not s.in_batch]
    debts = _debts(scheduler)
    if any(_keeps_its_pace(s, leader, scheduler, debts) for s in streams):
        owed = len(streams) > 1 and all(s.fair_key != leader.fair_key for s in streams)
        rows = cost.rows_beside(len(streams), start, owed=owed or _is_short(leader))
        num_calls = -(-left // rows)
        return [Chunk(leader, -(-left // num_calls))]
    enough = debts[leader.fair_key] + _SLOT_TOKENS
    peers = [s for s in ordered if s.in_batch == leader.in_batch and debts[s.fair_key] <= enough]
    # A call for several takes long. Where some wait for a slot, more will come to wait behind it.
    group = [] if scheduler.waiting else _group(peers, cost)
    if len(group) > 1:
        return group
    return [Chunk(leader, cost.rows_alone(left, start, whole=not leader.begun))]


def _keeps_its_pace(
    stream: Sequence, reader: Sequence, scheduler: Scheduler, debts: dict[str, float]
) -> bool:
    """Whether `stream` goes on as before while the prompt of `reader` is read.

    It does if it was being answered before `reader` came, but not for one that is done soon and
    whose key has had less, where its own key has several slots.
    """
    ahead = debts[reader.fair_key] - debts[stream.fair_key]
    several = sum(s.fair_key == stream.fair_key for s in scheduler.running) > 1
    if several and ahead < -_SLOT_TOKENS and _is_short(reader):
        return False
    came = reader.admitted_at if reader.queued else reader.job.arrived
    return reader.resumed or ahead > _SLOT_TOKENS or 0 < stream.first_token_at < came


def _is_short(reader: Sequence) -> bool:
    return reader.num_prompt - reader.num_cached <= _SHORT


def _group(peers: list[Sequence], cost: CostModel) -> list[Chunk]:
    """Those to be read together first, so that first tokens come soonest on average.

    Of what is nearly as good the largest group is taken, for it is done with sooner.
    """
    members = _neighbours(peers[0], peers)
    if len(members) < 2 or not (cost.prefill.known and cost.decode.known):
        return []
    alone = [cost.reading_seconds(s.num_pending) for s in members]
    alone += [cost.reading_seconds(s.num_pending) for s in peers if s not in members]
    ways: list[tuple[float, list[Chunk]]] = []
    for num in range(1, len(members) + 1):
        rows = sum(s.num_pending for s in members[:num])
        if num > 1 and rows > SMALL_CALL_ROWS and not cost.bulk_pays(rows):
            continue  # together they are no quicker than one after the other
        chunks, together = _jointly(members[:num], cost)
        later = sum(n * seconds for n, seconds in enumerate(reversed(alone[num:]), 1))
        first_tokens = len(alone) * together + later
        ends = len(alone) * (together + sum(alone[num:]))
        ways.append((first_tokens + _ENDS * ends, chunks))
    enough = min(seconds for seconds, _ in ways) * _NEARLY
    return next(chunks for seconds, chunks in reversed(ways) if seconds <= enough)


def _jointly(members: list[Sequence], cost: CostModel) -> tuple[list[Chunk], float]:
    """The first call for all of them, and how long all calls take until they are read.

    They are to end together, or the first answer would slow the others down: so what the longer
    ones have more is read first. Then equal counts, which are computed in one go.
    """
    left = {s: s.num_pending for s in sorted(members, key=lambda s: s.lane.index)}
    shortest = min(left.values())
    more = {s: pending - shortest for s, pending in left.items() if pending > shortest}
    start = sum(s.num_computed for s in members) / len(members)
    rows = cost.rows_alone(shortest * len(left), members[0].num_computed)
    full, rest = divmod(shortest * len(left), rows)
    seconds = full * cost.call_seconds(rows, start)
    seconds += cost.reading_seconds(rest + sum(more.values()))
    if sum(more.values()) >= SMALL_CALL_ROWS and shortest > 1:
        most = max(1, cost.rows_alone(sum(more.values()), members[0].num_computed) // len(more))
        return [Chunk(s, min(count, most)) for s, count in more.items()], seconds
    last = not full or (full == 1 and not rest)  # it takes the little that some have more
    if last and sum(left.values()) <= cost.max_batch_tokens:
        return [Chunk(s, count) for s, count in left.items()], seconds
    return [Chunk(s, max(1, rows // len(left))) for s in left], seconds


def _neighbours(leader: Sequence, ordered: list[Sequence]) -> list[Sequence]:
    """The leader, and those who could be read with it: in slots next to it, not much longer, with
    nothing in common that one could copy from another."""
    by_slot = {s.lane.index: s for s in ordered}
    index = leader.lane.index
    most = _SIMILAR * leader.num_prompt
    reachable = [leader]
    for step in (1, -1):
        at = index + step
        while at in by_slot and by_slot[at].num_pending <= most:
            if _share(by_slot[at], reachable):
                break
            reachable.append(by_slot[at])
            at += step
    return reachable


def _share(sequence: Sequence, others: list[Sequence]) -> bool:
    return any(
        (other.cache_key == sequence.cache_key or 0 < other.num_shared == sequence.num_shared)
        and _in_common(sequence, other)
        for other in others
    )


def _in_common(one: Sequence, other: Sequence) -> bool:
    """Whether both begin with something that neither has got yet, and that is worth copying."""
    end = max(one.num_computed, other.num_computed) + _WORTH_COPYING
    if len(one.token_ids) <= end or len(other.token_ids) <= end:
        return False
    return one.token_ids[:end] == other.token_ids[:end]
