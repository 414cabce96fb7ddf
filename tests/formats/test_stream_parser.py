"""Thoughts told from answers, wherever the text breaks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.chat import Tool
from service.domain.events import ReasoningDelta, ToolCallDelta
from service.formats.call_parser import CallParser
from service.formats.stream_parser import TAGS, StreamParser
from service.formats.tool_syntax import IN_TEXT


def parsed(chunks: list[str], *, inside: bool = False) -> tuple[str, str]:
    """The thought and the answer in these chunks."""
    parser = StreamParser(TAGS[0], inside=inside)
    thought, answer = "", ""
    deltas = [delta for chunk in chunks for delta in parser.feed(chunk)] + parser.finish()
    for delta in deltas:
        assert not isinstance(delta, ToolCallDelta)
        assert delta.text
        if isinstance(delta, ReasoningDelta):
            assert not answer
            thought += delta.text
        else:
            answer += delta.text
    return thought, answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", ("", "Hello")),
        ("<think>why</think>so", ("why", "so")),
        ("<think>\nwhy\n\n</think>\n\nso\n", ("why", "so\n")),
        ("\n <think>why</think>so", ("why", "so")),
        ("<think>\n\n</think>\n\nso", ("", "so")),
        ("<think>line\n\nline</think>", ("line\n\nline", "")),
        ("<think>not done </thi", ("not done </thi", "")),
        ("<think>not done\n", ("not done", "")),
        ("<thi", ("", "<thi")),
        ("  <thin air", ("", "  <thin air")),
        ("\n\nHello", ("", "\n\nHello")),
        ("say <think> and </think>", ("", "say <think> and </think>")),
        ("<think>a</think>b<think>c</think>", ("a", "b<think>c</think>")),
        ("<think>a < b </ c</think>d", ("a < b </ c", "d")),
        ("", ("", "")),
        (" \n", ("", " \n")),
    ],
)
def test_pieces_do_not_depend_on_where_chunks_break(text: str, expected: tuple[str, str]) -> None:
    for cut in range(len(text) + 1):
        for end in range(cut, len(text) + 1):
            assert parsed([text[:cut], text[cut:end], text[end:]]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("why</think>\n\nso", ("why", "so")),
        ("\nwhy", ("why", "")),
        ("</think>so", ("", "so")),
        ("", ("", "")),
    ],
)
def test_a_thought_that_the_prompt_began_is_gone_on_with(
    text: str, expected: tuple[str, str]
) -> None:
    for cut in range(len(text) + 1):
        assert parsed([text[:cut], text[cut:]], inside=True) == expected


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<", "think>", "</", "\n", " ", "word"]),
        max_size=12,
    ),
    st.lists(st.integers(0, 60), max_size=6),
    st.booleans(),
)
@settings(deadline=None)
def test_any_text_parses_alike_in_any_chunks(
    parts: list[str], cuts: list[int], inside: bool
) -> None:
    text = "".join(parts)
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert parsed(chunks, inside=inside) == parsed([text], inside=inside)


@given(st.text())
def test_an_answer_without_tags_comes_through_as_it_is(text: str) -> None:
    if not text.lstrip().startswith("<think>"):
        assert parsed(list(text)) == ("", text)


def test_calls_are_looked_for_only_behind_the_thought() -> None:
    call = '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'
    parser = StreamParser(TAGS[0], calls=CallParser(IN_TEXT, [Tool("ping")], new_id=lambda: "id"))
    deltas = [*parser.feed(f"<think>{call}</think>"), *parser.feed(call), *parser.finish()]
    assert deltas == [ReasoningDelta(call), ToolCallDelta(0, "id", "ping", "{}")]
    assert parser.num_calls == 1
