"""When each waiting sequence may expect its turn. A guess, from what the cost model knows."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from service.engine.order import reading_order
from service.engine.order.scheduler import Scheduler
from service.engine.sequence import Sequence

# An answer that is longer than most will take that share of their time still, or so.
_OVERDUE = 0.25


@dataclass(frozen=True, slots=True)
class Forecast:
    """`num_ahead` sequences are begun before this one. Its prompt's turn comes in `turn_seconds`,
    its first token in `first_token_seconds`; both 0 while nothing is known."""

    sequence: Sequence
    num_ahead: int
    turn_seconds: float
    first_token_seconds: float


def forecasts(scheduler: Scheduler, now: float) -> list[Forecast]:
    """For everyone whose prompt has yet to be read, in the order of their turns."""
    line: list[Forecast] = []
    at = 0.0
    for sequence in reading_order.in_order(scheduler):
        read_by = at + _reading_seconds(scheduler, sequence)
        line.append(Forecast(sequence, len(line), at, read_by))
        at = read_by
    if not scheduler.waiting:
        return line
    free = _free_slots(scheduler, now)
    hold = scheduler.cost.hold_seconds(scheduler.slots.num_slots)
    entitled = {s.fair_key for s in scheduler.waiting} - {s.fair_key for s in scheduler.running}
    for sequence in scheduler.waiting.in_order():
        if sequence.fair_key in entitled and not sequence.in_batch:
            slot_at = 0.0  # somebody yields to it
            entitled.remove(sequence.fair_key)
        else:
            slot_at = heapq.heappop(free)
            heapq.heappush(free, slot_at + hold)
            slot_at = max(slot_at, at)
        read_by = slot_at + _reading_seconds(scheduler, sequence)
        line.append(Forecast(sequence, len(line), slot_at, read_by))
    return line


def _reading_seconds(scheduler: Scheduler, sequence: Sequence) -> float:
    """Reading what is left of its prompt, beside the streams that run now."""
    cost = scheduler.cost
    left = max(0, sequence.num_pending - 1)
    seconds = cost.reading_seconds(left, sequence.num_computed)
    num_streams = len(scheduler.generating())
    if not num_streams or not seconds:
        return seconds
    share = 1 - cost.decode.seconds(num_streams) / cost.gap(num_streams)
    return seconds / max(share, 0.1)


def _free_slots(scheduler: Scheduler, now: float) -> list[float]:
    """In how many seconds each slot is expected to be free, as a heap."""
    hold = scheduler.cost.hold_seconds(scheduler.slots.num_slots)
    step = scheduler.cost.decode.seconds(len(scheduler.running))
    times = [0.0] * scheduler.slots.num_free
    for sequence in scheduler.running:
        rest = max(_OVERDUE * hold, hold - (now - sequence.admitted_at))
        times.append(min(rest, step * (sequence.max_tokens - sequence.num_generated)))
    heapq.heapify(times)
    return times
