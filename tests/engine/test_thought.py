"""A thought that goes on for too long is closed for the model."""

from __future__ import annotations

import pytest

from service.domain.events import FinishReason
from service.engine.thought import Thought
from tests.fakes.alphabet import END
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner, says

CLOSING = [101, 102, 103]


def closed_after(budget: int, start: str, pieces: list[str]) -> int | None:
    """How many of the pieces were written before the end was; None where it never was."""
    thought = Thought(budget, start, "</think>", list(CLOSING))
    for index, piece in enumerate(pieces):
        if (first := thought.next()) is not None:
            assert [first, thought.next(), thought.next(), thought.next()] == [*CLOSING, None]
            return index
        thought.read(piece.encode())
    return None


@pytest.mark.parametrize(
    ("budget", "start", "pieces", "expected"),
    [
        (3, "", ["a"] * 9, 3),
        (0, "", ["a"] * 9, 0),
        (3, "", ["a", "</think>", *"bbbbb"], None),
        (3, "", ["a</", "think>", *"bbbbb"], None),
        (3, "", ["a", "b", "</think>", *"bbbbb"], None),
        (3, "", ["a", "b", "c</", "think>"], 3),
        (3, "<think>", ["<think>", *"aaaaaa"], 3),
        (3, "<think>", ["\n", "<th", "ink>", *"aaaaaa"], 3),
        (1, "<think>", ["<th", "ink>", *"aaaaaa"], 2),
        (3, "<think>", ["Hello", *"aaaaaa"], None),
        (3, "<think>", ["<thin", " air", *"aaaaaa"], None),
    ],
)
def test_only_a_thought_is_closed_and_only_when_its_budget_is_spent(
    budget: int, start: str, pieces: list[str], expected: int | None
) -> None:
    assert closed_after(budget, start, pieces) == expected


def test_the_model_goes_on_behind_the_end_that_was_written_for_it() -> None:
    loop = Loop(FakeRunner(following=lambda slot: END if slot[-2:] == [10, 10] else ord("x")))
    loop.ask(1, "hi>", reasoning_budget=4, reasoning_start="", reasoning_end="</think>")
    loop.finish()
    assert loop.text(1) == "xxxx\n</think>\n\n"
    assert loop.done(1).reason is FinishReason.STOP
    assert loop.done(1).usage.completion_tokens == 16


def test_a_request_without_a_budget_thinks_as_long_as_it_likes() -> None:
    loop = Loop(FakeRunner(following=says("xxxxxxxx")))
    loop.ask(1, "hi>", reasoning_end="</think>")
    loop.finish()
    assert loop.text(1) == "xxxxxxxx"


class Veiled(FakeRunner):
    """A model for which X is a control token, which has no text."""

    def piece(self, token_id: int) -> bytes:
        return b"" if token_id == ord("X") else super().piece(token_id)


@pytest.mark.parametrize(("shown", "expected"), [((), "ab"), (("X",), "aXb"), (("XX",), "ab")])
def test_a_control_token_has_text_only_where_that_was_asked_for(
    shown: tuple[str, ...], expected: str
) -> None:
    loop = Loop(Veiled(following=says("aXb")))
    loop.ask(1, "hi>", shown_tokens=shown)
    loop.finish()
    assert loop.text(1) == expected
