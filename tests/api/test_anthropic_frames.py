"""Anthropic's events, as the vendor's own accumulator reads them: blocks one after the other."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.dialects.anthropic.frames import MessageFrames
from service.api.dialects.anthropic.replies import Reply, Thoughts
from service.api.errors import Problem
from service.domain.events import (
    Finished,
    FinishReason,
    QueuePosition,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tests.fakes.engine import FAKE_MODEL

FINISHED = Finished(FinishReason.STOP, Usage(10, 4, 3))
text = st.text(alphabet='ab\n\r\u2028\x85"\\é😀', min_size=1, max_size=6)
deltas = st.lists(st.builds(TextDelta, text) | st.builds(ReasoningDelta, text), max_size=20)


def frames(thoughts: Thoughts) -> MessageFrames:
    return MessageFrames(Reply(FAKE_MODEL, 64, thoughts), prompt_tokens=10, request_id="r1")


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, read line by line as `splitlines` reads, which breaks at most."""
    lines = [line for line in stream.decode().splitlines() if line]
    names, data = lines[::2], [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    assert names == [f"event: {event['type']}" for event in data]
    return data


def accumulated(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The message's blocks; fails where two are open at once, or an index is not the next."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        if event["type"] == "content_block_start":
            assert (is_open, event["index"]) == (False, len(blocks))
            blocks.append(dict(event["content_block"]))
            if blocks[-1]["type"] == "tool_use":
                blocks[-1]["partial_json"] = ""
            is_open = True
        elif event["type"] == "content_block_delta":
            assert (is_open, event["index"]) == (True, len(blocks) - 1)
            kind = event["delta"]["type"].removesuffix("_delta")
            key = "partial_json" if kind == "input_json" else kind
            assert (key == "partial_json") == (blocks[-1]["type"] == "tool_use")
            blocks[-1][key] = blocks[-1].get(key, "") + event["delta"][key]
        elif event["type"] == "content_block_stop":
            assert (is_open, event["index"]) == (True, len(blocks) - 1)
            is_open = False
    assert not is_open
    return blocks


@given(deltas)
def test_blocks_follow_one_another_whatever_comes(said: list[TextDelta | ReasoningDelta]) -> None:
    writer = frames(Thoughts.SHOWN)
    events = events_of(b"".join([writer.opening(), *map(writer.event, [*said, FINISHED])]))
    blocks = accumulated(events)
    assert all(a["type"] != b["type"] for a, b in pairwise(blocks))
    for kind, delta in (("text", TextDelta), ("thinking", ReasoningDelta)):
        told = "".join(block[kind] for block in blocks if block["type"] == kind)
        assert told == "".join(each.text for each in said if isinstance(each, delta))
    assert all(block["signature"] for block in blocks if block["type"] == "thinking")
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]


@given(deltas)
def test_thoughts_that_are_left_out_leave_no_trace(
    said: list[TextDelta | ReasoningDelta],
) -> None:
    writer = frames(Thoughts.LEFT_OUT)
    blocks = accumulated(events_of(b"".join(map(writer.event, [*said, FINISHED]))))
    told = "".join(each.text for each in said if isinstance(each, TextDelta))
    assert blocks == ([{"type": "text", "text": told}] if told else [])


def test_the_last_usage_is_the_whole_usage() -> None:
    writer = frames(Thoughts.LEFT_OUT)
    start, _, delta, _ = events_of(writer.opening() + writer.event(FINISHED))
    assert (start["message"]["usage"]["input_tokens"], start["message"]["content"]) == (10, [])
    assert delta["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 3,
    }


def test_a_failure_is_an_error_event_with_the_requests_id() -> None:
    problem = Problem(503, "engine_unavailable", "The engine stopped.")
    (event,) = events_of(frames(Thoughts.SHOWN).failure(problem))
    assert event == {
        "type": "error",
        "error": {"type": "api_error", "message": "The engine stopped."},
        "request_id": "r1",
    }


def test_what_has_no_frame_is_a_bug() -> None:
    with pytest.raises(TypeError, match="QueuePosition has no frame"):
        frames(Thoughts.SHOWN).event(QueuePosition(1, 1.0))


@given(st.lists(st.lists(text, max_size=3), min_size=1, max_size=4), deltas)
def test_each_call_is_a_block_of_its_own(calls: list[list[str]], before: list[Any]) -> None:
    stream = frames(Thoughts.SHOWN)
    data = b"".join(stream.event(event) for event in before)
    for index, pieces in enumerate(calls):
        data += stream.event(ToolCallDelta(index, f"call_{index}", f"tool_{index}"))
        data += b"".join(stream.event(ToolCallDelta(index, arguments=piece)) for piece in pieces)
    data += stream.event(FINISHED)
    blocks = accumulated(events_of(data))
    assert blocks[-len(calls) :] == [
        {
            "type": "tool_use",
            "id": f"toolu_{index}",
            "name": f"tool_{index}",
            "input": {},
            "partial_json": "".join(pieces),
        }
        for index, pieces in enumerate(calls)
    ]
