from __future__ import annotations

import pytest

from service.domain.errors import QueueFull
from service.domain.sampling import Sampling
from service.engine.kv.slots import Slots
from service.engine.order.cost import CostModel
from service.engine.order.scheduler import Scheduler, plan_decode
from service.engine.sequence import Job, Sequence
from service.engine.text import TextStream
from tests.fakes.loop import submit
from tests.fakes.runner import FakeRunner

RUNNER = FakeRunner()


def sequence(request_id: int, length: int = 4, key: str = "") -> Sequence:
    job = Job(1, submit(request_id, "", cache_key=key, fair_key=key), arrived=0.0)
    sampler = RUNNER.create_sampler(Sampling(), [])
    return Sequence(job, [request_id] * length, 100, sampler, TextStream())


def scheduler(num_slots: int = 4, max_waiting: int = 8) -> Scheduler:
    return Scheduler(Slots(num_slots, 1024), CostModel(0.25, 512), max_waiting)


def admit(plan: Scheduler, new: Sequence, slot: int, num_computed: int = 0) -> Sequence:
    """As the engine does, into a slot of the test's choice."""
    lane = plan.slots[slot]
    lane.read(new.token_ids[:num_computed])
    plan.shares.enter(new.fair_key)
    new.occupy(lane, now=0.0)
    plan.running.append(new)
    return new


def test_the_key_that_has_had_least_goes_first_and_each_is_served_in_order() -> None:
    plan = scheduler(num_slots=1, max_waiting=10)
    for request_id, key in enumerate(["a", "a", "b", "a", "c"]):
        plan.enqueue(sequence(request_id, key=key))
    order = []
    while plan.waiting:
        one = plan.waiting.peek()
        order.append(one.job.submit.id)
        plan.shares.charge(one, 10)
        plan.waiting.remove(one)
    assert order == [0, 2, 4, 1, 3]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    plan = scheduler(num_slots=1, max_waiting=2)
    admit(plan, sequence(0), slot=0)
    assert [plan.enqueue(sequence(i)) for i in (1, 2)] == [0, 1]
    plan.cost.held(12.0)
    with pytest.raises(QueueFull, match="2 requests are waiting") as refused:
        plan.enqueue(sequence(3))
    assert refused.value.retry_after_seconds == pytest.approx(36.0)


def test_one_key_does_not_fill_the_queue_for_the_others() -> None:
    plan = scheduler(num_slots=1, max_waiting=8)
    admit(plan, sequence(0), slot=0)
    for request_id in range(1, 7):
        plan.enqueue(sequence(request_id, key="a"))
    with pytest.raises(QueueFull, match="6 of 8"):
        plan.enqueue(sequence(7, key="a"))
    for request_id in (8, 9):
        plan.enqueue(sequence(request_id, key="b"))
    with pytest.raises(QueueFull, match="8 requests are waiting"):
        plan.enqueue(sequence(10, key="b"))


def test_requests_that_a_free_slot_awaits_do_not_count_as_waiting() -> None:
    plan = scheduler(num_slots=2, max_waiting=0)
    assert [plan.enqueue(sequence(i)) for i in (1, 2)] == [0, 0]
    with pytest.raises(QueueFull):
        plan.enqueue(sequence(3))


def test_a_sequence_that_leaves_the_queue_leaves_the_others_in_order() -> None:
    plan = scheduler()
    waiting = [sequence(i) for i in range(4)]
    for one in waiting:
        plan.enqueue(one)
    plan.waiting.remove(waiting[1])
    assert [s.job.submit.id for s in plan.waiting] == [0, 2, 3]
    assert len(plan.waiting) == 3


def test_decode_rows_come_in_the_order_of_slots() -> None:
    plan = scheduler()
    for slot in (2, 0, 1):
        admit(plan, sequence(slot, length=5), slot, num_computed=4)
    decode = plan_decode(plan.generating(), plan.slots, lambda _: False)
    assert [(row.slot, row.position, row.token_id) for row in decode.rows] == [
        (0, 4, 0),
        (1, 4, 1),
        (2, 4, 2),
    ]
    assert decode.num_runs == 1


def test_a_hole_is_padded_where_that_pays() -> None:
    plan = scheduler()
    plan.slots[1].read([5, 5, 5])
    for slot in (0, 2):
        admit(plan, sequence(slot, length=5), slot, num_computed=4)
    decode = plan_decode(plan.generating(), plan.slots, lambda _: True)
    assert [(row.slot, row.position) for row in decode.rows] == [(0, 4), (1, 3), (2, 4)]
    assert [row for row, _ in decode.sampled] == [0, 2]
    assert ([slot.index for slot in decode.padded], decode.num_runs) == ([1], 1)


def test_a_hole_stays_where_padding_costs_more_than_a_split() -> None:
    plan = scheduler()
    for slot in (0, 2):
        admit(plan, sequence(slot, length=5), slot, num_computed=4)
    decode = plan_decode(plan.generating(), plan.slots, lambda _: False)
    assert ([row.slot for row in decode.rows], decode.num_runs) == ([0, 2], 2)


def test_a_slot_whose_prompt_is_being_read_is_never_padded() -> None:
    plan = scheduler()
    for slot, num_computed in ((0, 4), (1, 2), (2, 4)):
        admit(plan, sequence(slot, length=5), slot, num_computed)
    decode = plan_decode(plan.generating(), plan.slots, lambda _: True)
    assert [row.slot for row in decode.rows] == [0, 2]
