"""A small model goes ahead, on fakes that take time: when it is asked, and no answer changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.speculation import LENGTHS
from service.settings import EngineSettings
from tests.engine.test_speculation import POEM, ask, counting, num_decodes
from tests.fakes.clock import FakeClock
from tests.fakes.drafter import FakeDrafter
from tests.fakes.loop import Loop
from tests.fakes.runner import Next, says
from tests.fakes.timed import Machine, TimedRunner

MOST = LENGTHS[-1]
# Memory is what such a machine waits for: more rows cost hardly more.
QUICK_ROWS = Machine(base=0.030, per_row=0.0005, decode_row=0.001)
NEW_TEXT = "".join(chr(counting([0] * i)) for i in range(400))


def loop_with(
    following: Next, drafter: FakeDrafter | None, machine: Machine = QUICK_ROWS, **facts: Any
) -> Loop:
    clock = drafter.clock if drafter is not None else FakeClock()
    runner = TimedRunner(
        following=following,
        slot_length=2000,
        max_draft=MOST,
        clock=clock,
        machine=machine,
        drafter=drafter,
        **facts,
    )
    return Loop(runner, EngineSettings(max_waiting=2), clock)


def test_a_small_model_that_is_right_makes_an_answer_quicker() -> None:
    plain, ahead = loop_with(says(NEW_TEXT), None), loop_with(says(NEW_TEXT), right())
    seconds = ask(plain, "question>")
    assert seconds / ask(ahead, "question>") > 2.5
    assert ahead.text(1) == plain.text(1) == NEW_TEXT
    assert ahead.done(1).usage == plain.done(1).usage


def right(text: str = NEW_TEXT, **facts: Any) -> FakeDrafter:
    return FakeDrafter(says(text), **facts)


def wrong(**facts: Any) -> FakeDrafter:
    return FakeDrafter(lambda _: ord("?"), **facts)


def test_one_that_is_always_wrong_is_soon_asked_no_more() -> None:
    drafter = wrong()
    plain, ahead = loop_with(says(NEW_TEXT), None), loop_with(says(NEW_TEXT), drafter)
    seconds = ask(plain, "question>")
    assert ask(ahead, "question>") < seconds * 1.05
    assert drafter.num_guessed < 80
    asked = drafter.num_guessed
    ask_again(ahead)
    assert drafter.num_guessed < asked + 40


def ask_again(loop: Loop) -> None:
    loop.ask(2, "another>")
    loop.finish()


def test_one_that_is_as_slow_as_the_model_itself_is_not_asked() -> None:
    drafter = right(guess_seconds=0.031)
    plain, ahead = loop_with(says(NEW_TEXT), None), loop_with(says(NEW_TEXT), drafter)
    seconds = ask(plain, "question>")
    assert ask(ahead, "question>") < seconds * 1.03
    assert drafter.num_guessed < 40


def test_where_every_row_costs_as_much_as_a_step_it_is_not_asked() -> None:
    drafter = right()
    dear = Machine(base=0.0, per_row=0.04, decode_row=0.04)
    plain, ahead = (loop_with(says(NEW_TEXT), d, dear) for d in (None, drafter))
    seconds = ask(plain, "question>")
    assert ask(ahead, "question>") < seconds * 1.03


def test_a_long_prompt_is_read_by_it_between_steps_a_piece_at_a_time() -> None:
    """Nobody waits long for it: a piece takes about as long as a step."""
    drafter = right()
    ahead = loop_with(says(NEW_TEXT), drafter, max_prompt_bytes=5000)
    ask(ahead, f"{'x' * 900}>")
    assert ahead.text(1) == NEW_TEXT
    assert drafter.num_guessed > 100
    assert drafter.most_read * drafter.read_seconds < 2 * 0.031


def test_a_long_prompt_before_a_short_answer_is_not_worth_reading() -> None:
    drafter = right(read_seconds=0.01)
    ahead = loop_with(says(NEW_TEXT), drafter, max_prompt_bytes=5000)
    ask(ahead, "warm up>")
    before = drafter.num_read
    ahead.ask(2, f"{'x' * 900}>", max_tokens=20)
    ahead.finish()
    assert drafter.num_read - before < 100


def test_the_next_turn_is_not_read_anew() -> None:
    drafter = right("yes, " + NEW_TEXT[:60])
    ahead = loop_with(says("yes, " + NEW_TEXT[:60]), drafter)
    ask(ahead, f"{POEM}>")
    before = drafter.num_read
    ahead.ask(2, f"{POEM}>yes, {NEW_TEXT[:60]} and then>")
    ahead.finish()
    assert ahead.text(2) == "yes, " + NEW_TEXT[:60]
    assert drafter.num_read - before < 120


def test_nothing_that_was_read_for_one_key_is_there_for_another() -> None:
    drafter = right()
    ahead = loop_with(says(NEW_TEXT), drafter, num_slots=1)
    ahead.ask(1, f"{POEM}>", cache_key="one", max_tokens=60)
    ahead.finish()
    held = dict(drafter.lanes)
    assert held[0][0] == "one"
    before = drafter.num_read
    ahead.ask(2, f"{POEM}>", cache_key="other", max_tokens=60)
    ahead.finish()
    assert drafter.num_read - before >= len(POEM)


def test_a_conversation_that_is_too_long_for_it_goes_on_without() -> None:
    drafter = right(length=100)
    ahead = loop_with(says(NEW_TEXT), drafter)
    ask(ahead, "question>")
    assert ahead.text(1) == NEW_TEXT
    assert 0 < drafter.num_guessed < 100


def test_one_that_breaks_is_not_asked_again_and_no_answer_suffers() -> None:
    drafter = right(breaks=lambda: True)
    ahead = loop_with(says(NEW_TEXT), drafter)
    ask(ahead, "question>")
    assert ahead.text(1) == NEW_TEXT
    assert drafter.num_read == 0


def test_two_answers_at_once_are_left_alone() -> None:
    drafter = right()
    ahead = loop_with(says(NEW_TEXT), drafter)
    ahead.ask(1, "question>")
    ahead.ask(2, "question>")
    ahead.finish()
    assert ahead.text(1) == ahead.text(2) == NEW_TEXT
    assert drafter.num_guessed < MOST


def test_what_was_said_before_is_looked_up_rather_than_asked_for() -> None:
    drafter = right(POEM * 6)
    ahead = loop_with(says(POEM * 6), drafter)
    ask(ahead, f"repeat: {POEM}>")
    assert ahead.text(1) == POEM * 6
    assert drafter.num_guessed < 150
    assert num_decodes(ahead) < len(POEM * 6) / 4


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_answer_changes_however_often_it_is_right(data: st.DataObject) -> None:
    rights = data.draw(st.lists(st.booleans(), min_size=1, max_size=7))
    answer = data.draw(st.sampled_from([NEW_TEXT[:120], POEM * 2, POEM + NEW_TEXT[:40]]))
    options: dict[str, Any] = {
        "stop": tuple(data.draw(st.sampled_from([[], ["violet"], [NEW_TEXT[50:53]]]))),
        "max_tokens": data.draw(st.integers(1, 200)),
    }
    truth = says(answer)
    drafter = FakeDrafter(
        lambda tokens: truth(tokens) if rights[len(tokens) % len(rights)] else ord("?")
    )
    plain, ahead = loop_with(truth, None), loop_with(truth, drafter)
    ask(plain, f"{POEM}>", **options)
    ask(ahead, f"{POEM}>", **options)
    assert ahead.text(1) == plain.text(1)
    assert ahead.done(1).usage == plain.done(1).usage
    assert ahead.done(1).reason == plain.done(1).reason
    for slot, (_, held) in drafter.lanes.items():
        assert held == ahead.runner.slots[slot][: len(held)]


@pytest.mark.parametrize("where", [0, 1])
def test_the_slot_holds_nothing_that_was_guessed_wrong(where: int) -> None:
    answer = NEW_TEXT[:150]
    truth = says(answer)
    drafter = FakeDrafter(lambda tokens: truth(tokens) if len(tokens) % 5 != where else ord("?"))
    loop = loop_with(truth, drafter)
    ask(loop, "question>")
    (slot,) = (slot for slot in loop.engine.slots if slot.num_tokens)
    assert bytes(loop.runner.slots[slot.index]).decode() == f"question>{answer}"
