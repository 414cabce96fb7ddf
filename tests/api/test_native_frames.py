"""The framing rules of the raw-text stream, as the page that cuts it sees them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.dialects.native.frames import JsonFrames, TextFrames
from service.api.errors import Problem
from service.domain.events import Finished, FinishReason, TextDelta, Usage

PING = b": ping\n\n"
pieces = st.lists(st.text(alphabet="\n\r ab[]END:dt\u2028é😀", max_size=6), max_size=30)


def page_reads(stream: bytes) -> tuple[str, bool]:
    """What the oldest page makes of a stream: its own few lines, in Python."""
    text, ended = "", False
    *parts, rest = stream.decode().split("\n\n")
    assert rest == ""
    for part in parts:
        if part.startswith("data: "):
            payload = part[6:]
            if payload == "[END]":
                ended = True
            else:
                text += payload
    return text, ended


def written(texts: list[str]) -> bytes:
    frames = TextFrames()
    stream = b": ok\n\n" + frames.opening()
    for text in texts:
        stream += frames.event(TextDelta(text)) + PING
    return stream + frames.event(Finished(FinishReason.STOP))


def as_promised(text: str) -> str:
    """Breaks at the very end are left out, and an empty line has a space in it."""
    return re.sub(r"\n(?=\n)", "\n ", text.rstrip("\n"))


@given(pieces)
def test_the_page_reads_the_text_however_it_is_cut(texts: list[str]) -> None:
    assert page_reads(written(texts)) == (as_promised("".join(texts)), True)


@pytest.mark.parametrize("texts", [["[END]"], ["[EN", "D]"], ["\n", "[END]"], ["[END]\n", "x"]])
def test_an_answer_that_spells_the_end_mark_does_not_end(texts: list[str]) -> None:
    assert page_reads(written(texts)) == (as_promised("".join(texts)), True)
    assert written(texts).count(b"data: [END]\n\n") == 1


def test_a_failure_is_told_in_words_and_ends_the_stream() -> None:
    frames = TextFrames()
    stream = frames.event(TextDelta("Half an"))
    stream += frames.failure(Problem(500, "generation_failed", "The engine\n\nstopped."))
    told = "Half an\n[Generation error: The engine\n \nstopped.]"
    assert page_reads(stream) == (told, True)


def test_json_frames_are_one_line_each_whatever_the_text() -> None:
    frames = JsonFrames("s1")
    stream = frames.opening() + frames.event(TextDelta("a\n\nb\r\u2028\x85c"))
    stream += frames.event(Finished(FinishReason.STOP, Usage(3, 0, 4)))
    assert [line for line in stream.decode().splitlines() if line] == [
        'data: {"session_id":"s1"}',
        'data: {"token":"a\\n\\nb\\r\\u2028\\u0085c"}',
        'data: {"done":true,"session_id":"s1","finish_reason":"stop","tokens_used":7,'
        '"completion_tokens":4}',
    ]


def test_json_frames_end_with_done_also_when_the_answer_broke() -> None:
    frame = JsonFrames("s1").failure(Problem(503, "engine_unavailable", "The engine stopped."))
    assert frame == b'data: {"error":"The engine stopped.","done":true,"session_id":"s1"}\n\n'
