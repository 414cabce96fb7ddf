"""Guessing ahead, on a fake model that takes time: what pays, and that no answer changes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.constraint import Constraint, ConstraintKind
from service.engine.speculation import LENGTHS, Lookup
from service.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.loop import Loop
from tests.fakes.runner import Next, says
from tests.fakes.timed import Machine, TimedRunner

POEM = "the rose is red, the violet's blue, the honey's sweet, and so are you. "
MOST = LENGTHS[-1]


def loop_with(following: Next, max_draft: int = MOST, machine: Machine | None = None) -> Loop:
    clock = FakeClock()
    runner = TimedRunner(
        following=following,
        slot_length=2000,
        max_draft=max_draft,
        clock=clock,
        machine=machine or Machine(),
    )
    return Loop(runner, EngineSettings(max_waiting=2), clock)


def ask(loop: Loop, text: str, **options: Any) -> float:
    """One request to its end; the seconds it took."""
    loop.ask(1, text, **options)
    started = loop.clock.now
    loop.finish()
    return loop.clock.now - started


def num_decodes(loop: Loop) -> int:
    return sum(call[0] == "decode" for call in loop.runner.calls)


def counting(token_ids: Sequence[int]) -> int:
    """Text that repeats nothing for long."""
    return ord("a") + random.Random(len(token_ids) * 7919).randrange(26)


def test_a_lookup_finds_what_came_after_the_same_tokens_last_time() -> None:
    lookup = Lookup()
    assert lookup.guess([1, 2, 3, 4, 5, 6], 4) == []
    assert lookup.guess([1, 2, 3, 4, 5, 6, 2, 3, 4], 2) == [5, 6]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 2, 3, 4, 5], 3) == [6, 2, 3]


def test_a_lookup_goes_round_in_circles_with_whom_it_follows() -> None:
    assert Lookup().guess([9, 1, 2, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 50))
def test_a_guess_is_what_followed_the_latest_place_like_this(
    tokens: list[int], length: int, stride: int
) -> None:
    lookup = Lookup()
    for stop in range(stride, len(tokens), stride):
        lookup.guess(tokens[:stop], length)
    guess = lookup.guess(tokens, length)
    places = [i for i in range(3, len(tokens)) if tokens[i - 3 : i] == tokens[-3:]]
    if not places:
        assert guess == []
    else:
        endless = tokens[places[-1] :]
        expected = list(itertools.islice(itertools.cycle(endless), length))
        assert guess == expected


def test_repeating_a_text_is_quicker_and_says_the_same() -> None:
    plain, guessing = loop_with(says(POEM * 4), max_draft=0), loop_with(says(POEM * 4))
    seconds = ask(plain, f"repeat: {POEM}>")
    guessed = ask(guessing, f"repeat: {POEM}>")
    assert guessing.text(1) == plain.text(1) == POEM * 4
    assert guessing.done(1).usage == plain.done(1).usage
    assert seconds / guessed > 1.5


def test_text_that_repeats_nothing_is_not_guessed_at() -> None:
    plain, guessing = loop_with(counting, max_draft=0), loop_with(counting)
    seconds = ask(plain, POEM, max_tokens=600)
    assert ask(guessing, POEM, max_tokens=600) == pytest.approx(seconds)
    assert guessing.text(1) == plain.text(1)


def test_where_rows_are_not_cheaper_together_nothing_is_guessed_for_long() -> None:
    """The first guesses find out; then it is tried again now and then."""
    dear = Machine(base=0.0, per_row=0.04, decode_row=0.04)
    plain = loop_with(says(POEM * 6), max_draft=0, machine=dear)
    guessing = loop_with(says(POEM * 6), machine=dear)
    seconds = ask(plain, f"repeat: {POEM}>")
    assert ask(guessing, f"repeat: {POEM}>") < seconds * 1.03


def test_two_sequences_are_not_guessed_at() -> None:
    loop = loop_with(says(POEM * 2))
    loop.ask(1, f"repeat: {POEM}>")
    loop.ask(2, f"repeat: {POEM}>")
    loop.finish()
    assert loop.text(1) == loop.text(2) == POEM * 2
    both = [call for call in loop.runner.calls if call[0] == "decode" and 1 in call]
    assert all(call.count(1) == 1 for call in both)


def test_max_tokens_is_kept_to_the_token() -> None:
    for max_tokens in range(60, 90):
        loop = loop_with(says(POEM * 3))
        ask(loop, f"repeat: {POEM}>", max_tokens=max_tokens)
        assert loop.text(1) == (POEM * 3)[:max_tokens]


def test_a_full_slot_ends_an_answer_where_it_would_without_guesses() -> None:
    clock = FakeClock()
    texts = []
    for max_draft in (0, MOST):
        runner = TimedRunner(
            following=says(POEM * 9), slot_length=300, max_draft=max_draft, clock=clock
        )
        loop = Loop(runner, EngineSettings(max_waiting=2), clock)
        ask(loop, f"repeat: {POEM}>")
        texts.append(loop.text(1))
    assert texts[0] == texts[1]


def test_a_stop_string_inside_a_guess_ends_the_answer_there() -> None:
    loop = loop_with(says(POEM * 4))
    ask(loop, f"repeat: {POEM}>", stop=("sweet, and so are you. the",))
    assert loop.text(1) == POEM[: POEM.index("sweet")]


def test_a_slot_holds_nothing_that_was_guessed_wrong() -> None:
    answer = POEM + POEM[:30] + "but no, it is not so, " + POEM
    loop = loop_with(says(answer))
    ask(loop, f"repeat: {POEM}>")
    assert loop.text(1) == answer
    (slot,) = (slot for slot in loop.engine.slots if slot.num_tokens)
    held = loop.runner.slots[slot.index]
    assert held == list(slot.tokens[: slot.num_tokens])
    assert bytes(held).decode() == f"repeat: {POEM}>{answer}"[: len(held)]


def test_what_a_grammar_leaves_no_choice_about_is_guessed() -> None:
    fixed = '{"the name of the thing that was asked for": "'
    held = Constraint(ConstraintKind.REGEX, f'({fixed}[a-z]"}}\n){{8}}'.replace('{"', '\\{"'))
    plain, guessing = loop_with(says("x"), max_draft=0), loop_with(says("x"))
    seconds = ask(plain, "json>", constraint=held)
    guessed = ask(guessing, "json>", constraint=held)
    assert guessing.text(1) == plain.text(1)
    assert seconds / guessed > 1.5


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_answer_changes_whatever_repeats_in_it(data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(["abcabc", "xyz ", POEM[:20], "q"]), max_size=25))
    options: dict[str, Any] = {"stop": tuple(data.draw(st.sampled_from([[], ["zx"], ["q"]])))}
    answer = "".join(pieces)
    plain, guessing = loop_with(says(answer), max_draft=0), loop_with(says(answer))
    ask(plain, f"{POEM}>", **options)
    ask(guessing, f"{POEM}>", **options)
    assert guessing.text(1) == plain.text(1)
    assert guessing.done(1).usage == plain.done(1).usage
    assert guessing.done(1).reason == plain.done(1).reason
