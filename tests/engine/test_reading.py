"""Whose prompt is read when, and how much of it in one call. Time is virtual."""

from __future__ import annotations

import itertools
import statistics

import pytest

from service.ipc.messages import Cancel
from tests.engine.test_patience import prompt
from tests.fakes.timed import Machine, TimedLoop, timed_loop


def reads(loop: TimedLoop) -> list[tuple[object, ...]]:
    return [call for call in loop.runner.calls if call[0] == "prefill"]


def burst(count: int, bulk_rows: int | None = None) -> list[float]:
    """Seconds to the first token of prompts that come within a few milliseconds."""
    loop = timed_loop(bulk_rows=bulk_rows)
    asks = [
        (0.003 * n, lambda n=n: loop.ask(n, prompt(n + 1, 125 + n), max_tokens=64))
        for n in range(count)
    ]
    loop.run(*asks)
    return sorted(loop.first_token(n) for n in range(count))


# --- running streams ----------------------------------------------------------------------------


@pytest.mark.parametrize("bulk_rows", [None, 140])
def test_a_stream_never_waits_much_longer_for_a_token_because_4000_tokens_are_read(
    bulk_rows: int | None,
) -> None:
    loop = timed_loop(bulk_rows=bulk_rows)
    loop.run(
        (0, lambda: loop.ask(1, prompt(1, 30), max_tokens=900)),
        (3, lambda: loop.ask(2, prompt(2, 4000), max_tokens=2)),
    )
    came, asked = loop.came(1), loop.asked[2]
    quiet = statistics.median(loop.gaps(1)[:40])
    beside = sorted(b - a for a, b in itertools.pairwise(came) if asked < b and a < loop.came(2)[0])
    assert beside[int(0.99 * len(beside))] <= 4 * quiet


def test_gaps_beside_many_streams_stay_within_the_target() -> None:
    loop = timed_loop()
    for number in range(5):
        loop.ask(number, prompt(number, 30), max_tokens=400)
    loop.run((6, lambda: loop.ask(9, prompt(9, 2000), max_tokens=2)), seconds=40)
    gaps = [gap for n in range(5) for gap in loop.gaps(n)]
    target = loop.settings.inter_token_target_seconds
    assert sorted(gaps)[int(0.99 * len(gaps))] <= 1.1 * target


def test_a_stream_that_was_there_before_many_prompts_came_goes_on_as_before() -> None:
    loop = timed_loop()
    asks = [(3, lambda n=n: loop.ask(n, prompt(n, 125), max_tokens=8)) for n in range(2, 7)]
    loop.run((0, lambda: loop.ask(1, prompt(1, 30), max_tokens=300)), *asks)
    assert max(loop.gaps(1)) <= 1.1 * loop.settings.inter_token_target_seconds


# --- whose turn ---------------------------------------------------------------------------------


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    loop = timed_loop()
    loop.run(
        (0, lambda: loop.ask(1, prompt(1, 4000), max_tokens=2)),
        (2, lambda: loop.ask(2, prompt(2, 60), max_tokens=2)),
    )
    assert loop.first_token(2) < 1.2


def test_a_long_prompt_is_not_put_off_for_ever_by_short_ones() -> None:
    loop = timed_loop()
    asks = [(0.3 * n, lambda n=n: loop.ask(n, prompt(n, 40), max_tokens=1)) for n in range(10, 400)]
    loop.run((0, lambda: loop.ask(1, prompt(1, 1000), max_tokens=1)), *asks, seconds=120)
    assert loop.came(1)


def test_a_lone_prompt_is_read_in_calls_that_a_newcomer_can_wait_for() -> None:
    loop = timed_loop()
    calls = len(reads(loop))
    loop.ask(1, prompt(1, 1000), max_tokens=1)
    loop.run()
    rows = [int(str(call[2])) for call in reads(loop)[calls:]]
    assert max(loop.engine.cost.call_seconds(n, 0) for n in rows) < 0.5


# --- jointly ------------------------------------------------------------------------------------


def test_eight_prompts_that_come_together_have_their_first_tokens_sooner_than_jointly() -> None:
    all_at_once = Machine().rows(8 * 128, blas=False)
    first = burst(8)
    assert statistics.median(first) < 0.85 * all_at_once
    assert statistics.mean(first) < all_at_once


@pytest.mark.parametrize("count", [4, 8])
def test_prompts_that_come_together_are_answered_as_soon_as_if_read_jointly(count: int) -> None:
    """Small calls beside the first streams would cost all of them a third of the time."""
    machine = Machine()
    jointly = machine.rows(count * 130, blas=False) + count * machine.per_position * 130 * 65
    jointly += 64 * (machine.base + count * machine.decode_row)
    loop = timed_loop()
    began = loop.clock()
    for number in range(count):
        loop.ask(number, prompt(number + 1, 130), max_tokens=64)
    loop.run()
    assert loop.clock() - began <= 1.02 * jointly


def test_where_blas_is_quicker_in_bulk_several_prompts_share_a_call() -> None:
    assert statistics.median(burst(8, bulk_rows=140)) < statistics.median(burst(8))
    loop = timed_loop(bulk_rows=140)
    for number in range(4):
        loop.ask(number, prompt(number + 1), max_tokens=1)
    loop.run()
    slots = [call[1] for call in reads(loop) if int(str(call[2])) > 40]
    assert len(set(slots)) >= 3


def test_two_prompts_are_read_one_after_the_other() -> None:
    first, second = burst(2)
    assert first < 0.7 * second


def test_what_equal_beginnings_have_in_common_is_read_once_even_where_joint_calls_pay() -> None:
    loop = timed_loop(bulk_rows=140)
    calls = len(reads(loop))
    for number in range(8):
        loop.ask(number, prompt(99, 2000) + prompt(number, 20), max_tokens=1)
    loop.run()
    computed = sum(int(str(call[2])) for call in reads(loop)[calls:])
    assert computed <= 1.2 * 2020


def test_cancelling_one_of_those_that_share_a_call_costs_the_others_nothing() -> None:
    loop = timed_loop(bulk_rows=140)

    def cancel() -> None:
        loop.intake.received(1, Cancel(2))

    for number in range(4):
        loop.ask(number, prompt(number + 1), max_tokens=5)
    loop.runner.during_prefill = cancel
    loop.turn()
    loop.runner.during_prefill = lambda: None
    aborted = loop.runner.aborting
    loop.run()
    assert not aborted
    assert loop.dones(2)[0].reason.value == "cancelled"
    assert [len(loop.text(n)) for n in (0, 1, 3)] == [5, 5, 5]


def test_a_shared_call_is_cut_short_once_nobody_wants_it() -> None:
    loop = timed_loop(bulk_rows=140)

    def cancel() -> None:
        for number in range(4):
            loop.intake.received(1, Cancel(number))

    for number in range(4):
        loop.ask(number, prompt(number + 1), max_tokens=5)
    loop.runner.during_prefill = cancel
    loop.turn()
    assert loop.runner.aborting
    loop.runner.during_prefill = lambda: None
    loop.run()
    assert {loop.done(n).reason.value for n in range(4)} == {"cancelled"}
    loop.ask(5, prompt(3), max_tokens=5)
    loop.run()
    assert len(loop.text(5)) == 5
