"""The parts of the terminal chat that need no service."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from service.cli.chat.client import Client, Facts, Refused
from service.cli.chat.screen import Screen, footer, split_complete, stoppable
from service.cli.chat.session import Session, Told


@given(st.lists(st.sampled_from(["a", "\n\n", "```\n", "- x", "\n", "1. y", " "]), max_size=40))
def test_nothing_is_lost_between_what_is_complete_and_the_rest(pieces: list[str]) -> None:
    pending, shown = "", []
    for piece in pieces:
        pending += piece
        done, pending = split_complete(pending)
        if done:
            shown.append(done)
    assert "\n\n".join([*shown, pending]) == "".join(pieces)


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("one\n\ntwo", "one"),
        ("one\n\n```py\na\n\nb", "one"),
        ("```py\na\n\nb", ""),
        ("```py\na\n\nb\n```\n\nthen", "```py\na\n\nb\n```"),
        ("1. a\n\n2. b", ""),
        ("one\n\n", ""),
    ],
)
def test_a_paragraph_is_complete_when_nothing_to_come_can_change_it(text: str, done: str) -> None:
    assert split_complete(text)[0] == done


def test_markdown_is_shown_as_such_on_a_terminal_and_as_it_is_elsewhere() -> None:
    pieces = ["**bo", "ld**\n\n", "- item"]
    terminal, plain = io.StringIO(), io.StringIO()
    Screen(Console(file=terminal, force_terminal=True, width=40)).answer(pieces)
    assert "\x1b[1mbold" in terminal.getvalue()
    assert "**" not in terminal.getvalue()
    Screen(Console(file=plain, force_terminal=False)).answer(pieces)
    assert plain.getvalue() == "**bold**\n\n- item\n"


def test_an_answer_cannot_rewrite_the_screen() -> None:
    terminal = io.StringIO()
    Screen(Console(file=terminal, force_terminal=True)).answer(["a\x1b[2J\x1b]0;title\x07b"])
    assert "\x1b[2J" not in terminal.getvalue()
    assert "\x1b]0;" not in terminal.getvalue()


def test_ctrl_c_ends_the_answer_and_closes_it() -> None:
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield "one"
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    assert list(stoppable(pieces())) == ["one", " …"]
    assert closed == [True]


def test_the_footer_says_speed_and_use_of_the_window() -> None:
    session = Session(Client("http://127.0.0.1:1"), model="pocket", window=1000)
    assert footer(session) == "pocket"
    session.told = Told(tokens=20, seconds=2.0, window_used=250)
    assert footer(session) == "pocket · 20 tokens · 10.0 tokens/s · context 250 of 1000 (25%)"


def test_an_option_is_checked_and_taken_back() -> None:
    session = Session(Client("http://127.0.0.1:1"))
    session.set("temperature", "0.2")
    assert session.options == {"temperature": 0.2}
    session.set("temperature", "default")
    assert session.options == {}
    with pytest.raises(Refused, match="not a number"):
        session.set("top_p", "high")
    with pytest.raises(Refused, match=r"colour can't be set; temperature, top_p, max_tokens can\."):
        session.set("colour", "1")


def test_a_service_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(Refused, match=r"No service answers at http://127\.0\.0\.1:1 "):
        Session(Client("http://127.0.0.1:1")).refresh()


class Stubborn(Client):
    """A service that keeps one conversation and refuses to answer; `gone` is what was deleted."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.gone: list[str] = []

    def get(self, path: str, **query: str) -> Facts:
        return {"messages": [{"role": "user", "content": "Bread?"}]}

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Facts:
        return {"id": "copy"}

    def delete(self, path: str) -> Facts:
        self.gone.append(path)
        return {}

    def answer(self, body: Mapping[str, Any], path: str = "/chat/stream") -> Iterator[Facts]:
        raise Refused("The queue is full.")


def test_an_answer_that_cannot_be_written_again_leaves_the_conversation_as_it_was() -> None:
    service = Stubborn()
    session = Session(service, conversation_id="bread")
    with pytest.raises(Refused, match="The queue is full"):
        list(session.regenerate())
    assert session.conversation_id == "bread"
    assert service.gone == ["/v1/conversations/copy"]
