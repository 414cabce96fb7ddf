"""A stream adds up to the whole answer, wherever the model's tokens happen to break."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.dialects.anthropic.frames import MessageFrames
from service.api.dialects.anthropic.replies import Reply, to_message
from service.api.dialects.anthropic.replies import Thoughts as Blocks
from service.api.dialects.openai.calls import ToolWords
from service.api.dialects.openai.reasoning import Thoughts
from service.api.dialects.openai.replies import Completion, CompletionFrames, to_reply
from service.api.dialects.responses.replies import Drafted, ResponseFrames
from service.api.dialects.responses.schemas import ResponseBody
from service.api.dialects.responses.tools import Toolbox
from service.chat.generate import Answer, collect
from service.domain.chat import Tool
from service.domain.events import Event, Finished, FinishReason, Usage
from service.engine.text import TextStream
from service.formats.call_parser import CallParser
from service.formats.stream_parser import TAGS, StreamParser
from service.formats.tool_syntax import IN_TEXT
from tests.fakes.engine import FAKE_MODEL

CALL = '<tool_call>\n{"name": "look", "arguments": {"city": "Zürich 😀 東京"}}\n</tool_call>'
TEXTS = (
    f"<think>\nHm, 東京?\n</think>\n\nLet me see 😀.\n\n{CALL}\n{CALL}",
    f"{CALL} Done. END never said",
    "<think>née</think>Plain 漢字, and END of it.",
    '<tool_call>\n{"name": "hook", "arguments": {}}\n</tool_call> is no tool of mine',
)
FINISHED = Finished(FinishReason.TOOL_CALLS, Usage(10, 0, 5, 2))


class Told:
    """A generation whose events are known."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[Event]:
        for event in self._events:
            yield event

    async def __aenter__(self) -> Told:
        return self

    async def __aexit__(self, *error: object) -> None: ...


def events_of(text: str, cuts: list[int]) -> list[Event]:
    """What the engine and the parser make of the bytes of `text`, as tokens between the cuts."""
    ids = iter(range(99))
    calls = CallParser(IN_TEXT, [Tool("look")], new_id=lambda: f"call_{next(ids)}")
    parser, stream = StreamParser(TAGS[0], calls=calls), TextStream(["END"])
    data = text.encode()
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    events: list[Event] = []
    for start, stop in pairwise(places):
        if stream.stopped_by is None:
            events += parser.feed(stream.feed(data[start:stop]))
    return [*events, *parser.feed(stream.finish()), *parser.finish(), FINISHED]


def data_of(stream: bytes) -> list[Any]:
    lines = [line for line in stream.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def openai_message(frames: bytes) -> dict[str, Any]:
    """The message as the vendor's client puts it together: strings are joined."""
    message: dict[str, Any] = {}
    for chunk in data_of(frames):
        for key, value in chunk["choices"][0]["delta"].items():
            if key != "tool_calls":
                message[key] = message.get(key, "") + value
                continue
            for piece in value:
                calls = message.setdefault("tool_calls", {})
                call = calls.setdefault(piece["index"], {"function": {"name": "", "arguments": ""}})
                call |= {key: piece[key] for key in ("id", "type") if key in piece}
                for name, part in piece["function"].items():
                    call["function"][name] += part
    if "tool_calls" in message:
        message["tool_calls"] = [*message["tool_calls"].values()]
    return message


def anthropic_blocks(frames: bytes) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for event in data_of(frames):
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"]})
        elif event["type"] == "content_block_delta":
            (_, delta), (key, value) = event["delta"].items()
            blocks[event["index"]][key] = blocks[event["index"]].get(key, "") + value
            assert delta.removesuffix("_delta") in (key, "input_json")
    for block in blocks:
        if "partial_json" in block:
            block["input"] = json.loads(block.pop("partial_json"))
    return blocks


def response_output(frames: bytes) -> list[dict[str, Any]]:
    """The output as the vendor's client puts it together: items and parts are added, deltas
    joined; the last event must say the same."""
    output: list[dict[str, Any]] = []
    events = data_of(frames)
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            output.append(event["item"])
        elif kind == "content_part.added":
            output[event["output_index"]]["content"].append(event["part"])
        elif kind in ("output_text.delta", "reasoning_text.delta"):
            part = output[event["output_index"]]["content"][event["content_index"]]
            part["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            output[event["output_index"]]["arguments"] += event["delta"]
        elif kind == "output_item.done":
            output[event["output_index"]]["status"] = event["item"]["status"]
            assert output[event["output_index"]] == event["item"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["output"] == output
    return [{key: item[key] for key in item if key != "id"} for item in output]


def response_frames(events: list[Event]) -> bytes:
    drafted = Drafted(ResponseBody(input="x"), Toolbox(), [], FAKE_MODEL, "resp_1")
    frames = ResponseFrames(drafted)
    told = [frames.opening()]
    for event in events:
        drafted.take(event)
        told.append(frames.event(event))
    return b"".join(told)


async def whole(text: str) -> Answer:
    return await collect(Told(events_of(text, [])))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("thoughts", list(Thoughts))
@given(cuts=st.lists(st.integers(0, 10_000), max_size=60))
@settings(deadline=None, max_examples=84)
async def test_openais(text: str, thoughts: Thoughts, cuts: list[int]) -> None:
    reply = to_reply(
        Completion(FAKE_MODEL),
        [await whole(text)],
        FINISHED.usage,
        thoughts=thoughts,
        with_logprobs=False,
        calls=ToolWords(),
    )
    message = reply["choices"][0]["message"]
    frames = CompletionFrames(Completion(FAKE_MODEL), ToolWords(), thoughts=thoughts)
    events = events_of(text, cuts)
    streamed = openai_message(frames.opening() + b"".join(map(frames.event, events)))
    assert streamed | {"refusal": None, "content": streamed["content"] or None} == message


@pytest.mark.parametrize("text", TEXTS)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=60))
@settings(deadline=None, max_examples=252)
async def test_anthropics(text: str, cuts: list[int]) -> None:
    reply = Reply(FAKE_MODEL, 64, Blocks.SHOWN)
    message = to_message(reply, await whole(text))
    frames = MessageFrames(reply, prompt_tokens=10, request_id="r1")
    blocks = anthropic_blocks(b"".join(map(frames.event, events_of(text, cuts))))
    assert blocks == message["content"]


@pytest.mark.parametrize("text", TEXTS)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=60))
@settings(deadline=None, max_examples=252)
async def test_responses(text: str, cuts: list[int]) -> None:
    at_once = response_output(response_frames(events_of(text, [])))
    assert response_output(response_frames(events_of(text, cuts))) == at_once


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("is_one_cut", [True, False], ids=["one cut", "a token a byte"])
async def test_all_dialects_wherever_there_is_a_byte(text: str, is_one_cut: bool) -> None:
    num_bytes = len(text.encode())
    splits = [[place] for place in range(num_bytes)] if is_one_cut else [list(range(num_bytes))]
    reply = Reply(FAKE_MODEL, 64, Blocks.SHOWN)
    told = await whole(text)
    completion = Completion(FAKE_MODEL)
    openai = to_reply(
        completion,
        [told],
        FINISHED.usage,
        thoughts=Thoughts.APART,
        with_logprobs=False,
        calls=ToolWords(),
    )["choices"][0]["message"]
    blocks = to_message(reply, told)["content"]
    output = response_output(response_frames(events_of(text, [])))
    for cuts in splits:
        events = events_of(text, cuts)
        frames = CompletionFrames(completion, ToolWords(), thoughts=Thoughts.APART)
        streamed = openai_message(frames.opening() + b"".join(map(frames.event, events)))
        assert streamed | {"refusal": None, "content": streamed["content"] or None} == openai
        messages = MessageFrames(reply, prompt_tokens=10, request_id="r1")
        assert anthropic_blocks(b"".join(map(messages.event, events))) == blocks
        assert response_output(response_frames(events)) == output
