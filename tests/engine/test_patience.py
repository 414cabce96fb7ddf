"""Those who wait: fair shares, deadlines, and what they are told meanwhile. Time is virtual."""

from __future__ import annotations

import statistics

import pytest

from service import metrics
from service.domain.chat import Priority
from service.domain.events import FinishReason
from service.ipc.messages import Queued
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner
from tests.fakes.timed import TimedLoop, timed_loop


def prompt(number: int, length: int = 128) -> str:
    """Of that many tokens, unlike any other from the first on."""
    return (f"#{number:03d}" * length)[:length]


def flood(loop: TimedLoop, key: str, numbers: range, max_tokens: int) -> None:
    for number in numbers:
        loop.ask(number, prompt(number), max_tokens=max_tokens, fair_key=key)


# --- shares -------------------------------------------------------------------------------------


# A call in bulk that is under way is not given up for anybody, so the first seconds are left out.
@pytest.mark.parametrize(
    ("bulk_rows", "seconds"),
    [(None, 0.5), (None, 3), (None, 8), (None, 15), (None, 25), (140, 8), (140, 15), (140, 25)],
)
def test_fifty_requests_of_one_key_do_not_make_another_wait(
    bulk_rows: int | None, seconds: float
) -> None:
    quiet = timed_loop(bulk_rows=bulk_rows)
    quiet.run((0, lambda: quiet.ask(1, prompt(1), max_tokens=5, fair_key="other")))
    loop = timed_loop(bulk_rows=bulk_rows)
    loop.run(
        (0, lambda: flood(loop, "flooder", range(100, 150), 64)),
        (seconds, lambda: loop.ask(1, prompt(1), max_tokens=5, fair_key="other")),
        seconds=seconds + 20,
    )
    assert loop.first_token(1) <= 2.5 * quiet.first_token(1)


def test_an_answer_that_yielded_its_slot_goes_on_where_it_was() -> None:
    loop = timed_loop(num_slots=2)
    loop.run(
        (0, lambda: loop.ask(1, prompt(1), max_tokens=100, fair_key="a")),
        (0, lambda: loop.ask(2, prompt(2), max_tokens=100, fair_key="a")),
        (4, lambda: loop.ask(3, prompt(3), max_tokens=10, fair_key="b")),
    )
    assert [len(loop.text(i)) for i in (1, 2, 3)] == [100, 100, 10]
    assert [loop.done(i).usage.prompt_tokens for i in (1, 2, 3)] == [128] * 3
    assert loop.came(3)[-1] < min(loop.came(1)[-1], loop.came(2)[-1])
    assert loop.engine.slots.num_free == 2


def test_slots_that_were_yielded_and_deadlines_that_were_missed_are_counted() -> None:
    def counts() -> list[float]:
        missed = metrics.DEADLINES_MISSED
        return [
            metrics.SLOTS_YIELDED.labels("batch")._value.get(),
            *(missed.labels(s)._value.get() for s in ("refused", "waiting", "answering")),
        ]

    before = counts()
    loop = timed_loop(num_slots=1)
    loop.engine.cost.held(0.1)
    loop.ask(1, prompt(1), max_tokens=500, priority=Priority.BATCH, deadline_seconds=20.0)
    loop.run(seconds=3)
    loop.ask(2, prompt(2), max_tokens=500, deadline_seconds=8.0)
    loop.run(seconds=2)
    loop.ask(3, prompt(3), first_token_seconds=3.0)
    loop.ask(4, prompt(4, 4000), first_token_seconds=3.0)
    loop.run()
    assert [b - a for a, b in zip(before, counts(), strict=True)] == [1, 1, 1, 2]


def test_text_is_the_same_whether_an_answer_yielded_or_not() -> None:
    def answer(*, disturbed: bool) -> str:
        loop = Loop(FakeRunner(num_slots=2, slot_length=200))
        for number in (1, 2):
            loop.ask(number, f"prompt {number}>", max_tokens=60, fair_key="a")
        loop.until(lambda: len(loop.text(2)) > 20)
        if disturbed:
            loop.ask(3, "another>", max_tokens=5, fair_key="b")
            loop.until(lambda: bool(loop.dones(3)))
            assert not loop.dones(1)
            assert not loop.dones(2)
        loop.finish()
        return loop.text(1) + loop.text(2)

    assert answer(disturbed=True) == answer(disturbed=False)


def test_two_keys_that_both_have_much_to_do_get_equal_shares() -> None:
    loop = timed_loop(num_slots=4)
    for number in range(40):
        loop.ask(number, prompt(number), max_tokens=40, fair_key="ab"[number % 2])
    loop.run(seconds=60)
    tokens = [sum(len(loop.text(n)) for n in range(40) if n % 2 == key) for key in (0, 1)]
    assert tokens[0] == pytest.approx(tokens[1], rel=0.15)


def test_a_key_of_twice_the_weight_gets_twice_the_share() -> None:
    loop = timed_loop(num_slots=4)
    for number in range(60):
        heavy = number % 2 == 0
        loop.ask(
            number,
            prompt(number),
            max_tokens=40,
            fair_key="heavy" if heavy else "light",
            weight=2.0 if heavy else 1.0,
        )
    loop.run(seconds=70)
    tokens = [sum(len(loop.text(n)) for n in range(i, 60, 2)) for i in (0, 1)]
    assert tokens[0] / tokens[1] == pytest.approx(2, rel=0.25)


def test_nobody_saves_up_a_share_by_doing_nothing() -> None:
    loop = timed_loop(num_slots=1)
    loop.run(
        (0, lambda: flood(loop, "busy", range(8), 20)),
        (5, lambda: flood(loop, "late", range(20, 28), 20)),
    )
    ends = sorted((loop.came(n)[-1], n < 20) for n in [*range(8), *range(20, 28)])
    after_five = [busy for at, busy in ends if at > loop.asked[20]][:8]
    assert 3 <= sum(after_five) <= 5


# --- classes ------------------------------------------------------------------------------------


def test_batch_work_waits_while_anybody_interactive_does() -> None:
    loop = timed_loop(num_slots=1)
    loop.ask(1, prompt(1), max_tokens=5)
    loop.ask(2, prompt(2), max_tokens=5, priority=Priority.BATCH, fair_key="b")
    loop.ask(3, prompt(3), max_tokens=5)
    loop.run()
    assert loop.came(1)[-1] < loop.came(3)[0] < loop.came(2)[0]


def test_batch_work_gives_its_slot_to_somebody_interactive_and_goes_on_later() -> None:
    loop = timed_loop(num_slots=1)
    loop.run(
        (0, lambda: loop.ask(1, prompt(1), max_tokens=100, priority=Priority.BATCH)),
        (3, lambda: loop.ask(2, prompt(2), max_tokens=20)),
    )
    assert loop.first_token(2) < 1.5
    assert loop.came(2)[-1] < loop.came(1)[-1]
    assert len(loop.text(1)) == 100


def test_batch_work_stands_still_while_the_prompt_of_somebody_interactive_is_read() -> None:
    loop = timed_loop(num_slots=4)
    loop.run(
        (0, lambda: loop.ask(1, prompt(1), max_tokens=100, priority=Priority.BATCH)),
        (3, lambda: loop.ask(2, prompt(2), max_tokens=20)),
    )
    quiet = timed_loop(num_slots=4)
    quiet.run((0, lambda: quiet.ask(2, prompt(2), max_tokens=20)))
    assert loop.first_token(2) == pytest.approx(quiet.first_token(2), rel=0.1)


# --- deadlines ----------------------------------------------------------------------------------


def test_a_first_token_that_would_come_too_late_is_refused_before_it_costs_anything() -> None:
    loop = timed_loop()
    loop.ask(1, prompt(1, 4000), first_token_seconds=10.0)
    calls = len(loop.runner.calls)
    loop.run()
    refused = loop.refused(1)
    assert refused.code == "deadline_missed"
    assert "10.0 s" in refused.message
    assert refused.retry_after_seconds is not None
    assert refused.retry_after_seconds > 20
    assert loop.runner.calls[calls:] == []
    assert loop.engine.scheduler.idle


def test_a_first_token_that_comes_in_time_is_not_refused() -> None:
    loop = timed_loop()
    loop.ask(1, prompt(1), max_tokens=5, first_token_seconds=3.0, deadline_seconds=60.0)
    loop.run()
    assert loop.done(1).reason is FinishReason.LENGTH
    assert loop.first_token(1) < 3.0


def test_behind_a_long_queue_a_short_patience_is_refused_and_a_long_one_is_not() -> None:
    loop = timed_loop(num_slots=1)
    for number in range(10):
        loop.ask(number, prompt(number), max_tokens=50)
    loop.ask(20, prompt(20), max_tokens=5, first_token_seconds=5.0)
    loop.ask(21, prompt(21), max_tokens=5, first_token_seconds=300.0)
    loop.run()
    assert loop.refused(20).code == "deadline_missed"
    assert loop.done(21).reason is FinishReason.LENGTH


def test_an_answer_whose_time_is_over_ends_with_what_there_is() -> None:
    loop = timed_loop()
    loop.ask(1, prompt(1), max_tokens=1000, deadline_seconds=10.0)
    loop.run()
    done = loop.done(1)
    assert done.reason is FinishReason.DEADLINE
    assert done.error_code is None
    assert 100 < done.usage.completion_tokens < 300
    assert loop.came(1)[-1] - loop.asked[1] == pytest.approx(10.0, abs=0.1)


def test_a_request_without_a_token_when_its_time_is_over_fails() -> None:
    loop = timed_loop(num_slots=1)
    loop.engine.cost.held(0.1)  # a bad guess: it seems that slots are free at once
    loop.ask(1, prompt(1), max_tokens=500, fair_key="a")
    loop.ask(2, prompt(2), max_tokens=5, fair_key="a", first_token_seconds=4.0)
    loop.run(seconds=30)
    done = loop.done(2)
    assert done.error_code == "deadline_missed"
    assert done.usage.completion_tokens == 0
    assert not loop.dones(1) or loop.done(1).reason is FinishReason.LENGTH


# --- what they are told -------------------------------------------------------------------------


def notices(loop: Loop, request_id: int) -> list[Queued]:
    return [f for f in loop.outbox.of(Queued) if f.id == request_id]


def test_who_waits_hears_about_once_a_second_how_many_go_first() -> None:
    loop = timed_loop(num_slots=1)
    for number in range(5):
        loop.ask(number, prompt(number), max_tokens=50)
    loop.run()
    assert notices(loop, 0) == []
    assert [n.num_ahead for n in notices(loop, 1)][-1] == 0
    places = [n.num_ahead for n in notices(loop, 4)]
    assert places[0] == 3
    assert places == sorted(places, reverse=True)
    waited = loop.first_token(4)
    assert 3 <= len(places) <= waited


def test_the_time_that_is_told_is_about_the_time_it_takes() -> None:
    loop = timed_loop(num_slots=2)
    for number in range(8):
        loop.ask(number, prompt(number), max_tokens=50)
    loop.run()
    for number in range(8, 16):
        loop.ask(number, prompt(number), max_tokens=50)
    told: dict[int, float] = {}
    posted = len(loop.outbox.frames)
    while not loop.engine.scheduler.idle or not loop.engine.inbox.empty():
        loop.engine.turn()
        for _, frame in loop.outbox.frames[posted:]:
            if isinstance(frame, Queued) and frame.id not in told:
                told[frame.id] = loop.clock() + frame.eta_seconds
        posted = len(loop.outbox.frames)
    off = [abs(told[n] - loop.came(n)[0]) / loop.first_token(n) for n in told]
    assert len(off) >= 6
    assert statistics.median(off) < 0.35


def test_a_stream_that_yielded_says_nothing_about_the_queue() -> None:
    loop = timed_loop(num_slots=1)
    loop.run(
        (0, lambda: loop.ask(1, prompt(1), max_tokens=50, priority=Priority.BATCH)),
        (3, lambda: loop.ask(2, prompt(2), max_tokens=100)),
    )
    assert notices(loop, 1) == []
