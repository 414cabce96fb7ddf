"""Anthropic's `/v1/messages`."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.chat import CAPITAL, STORY, names_a_picture
from tests.conformance.checks import Subject, check, refused
from tests.conformance.tools import ABOUT, BOTH, CITY, SUNNY, WEATHER

AREA = "Anthropic messages"
TOOL = {**ABOUT, "input_schema": CITY}
OTHER = {"name": "ping", "input_schema": {"type": "object"}}
COUNT = "Count from 1 to 10."


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@check(AREA, "a whole answer, with `system` as text or blocks")
def _(server: Subject) -> None:
    for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
        message = server.message(CAPITAL, system=system)
        assert "Paris" in text_of(message), f"the answer is {text_of(message)!r}"
        assert (message.stop_reason, message.role) == ("end_turn", "assistant")
        assert message.usage.output_tokens > 0


@check(AREA, "a stream: named events in order, dense indices; adds up to the whole answer")
def _(server: Subject) -> None:
    list(server.message(COUNT, stream=True))
    frames = [(name, data) for name, data in server.last.frames() if name != "ping"]
    assert all(name == data["type"] for name, data in frames), "names and types differ"
    names = [name for name, _ in frames]
    assert names[0] == "message_start"
    assert names.count("message_start") == 1
    assert names[-2:] == ["message_delta", "message_stop"]
    starts = [data["index"] for name, data in frames if name == "content_block_start"]
    assert starts == list(range(len(starts)))
    deltas = [data["delta"] for name, data in frames if name == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == text_of(server.message(COUNT))


@check(AREA, "anthropic-sdk's own accumulator agrees with the stream")
def _(server: Subject) -> None:
    with server.claude.messages.stream(**server.asking_claude(COUNT)) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(final)
    whole = server.message(COUNT)
    assert (text_of(whole), whole.usage.output_tokens) == (text, final.usage.output_tokens)


@check(AREA, "`stop_sequence` and `max_tokens` are told apart")
def _(server: Subject) -> None:
    stopped = server.message(COUNT, stop_sequences=["5"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "5")
    assert "5" not in text_of(stopped)
    cut = server.message(STORY, max_tokens=4)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 4)


@check(AREA, "`count_tokens` equals usage, with system and tools, cached or not")
def _(server: Subject) -> None:
    asked = {"system": "Be brief.", "tools": [TOOL]}
    told = server.asking_claude(WEATHER)["messages"]
    counted = server.claude.messages.count_tokens(model=server.model, messages=told, **asked)
    for _ in range(2):
        usage = server.message(WEATHER, **asked).usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        total = usage.input_tokens + cached
        assert counted.input_tokens == total, f"{counted.input_tokens} counted, {total} used"


@check(AREA, "tools: the call, its result, the answer that uses it")
def _(server: Subject) -> None:
    first = server.message(WEATHER, tools=[TOOL])
    assert first.stop_reason == "tool_use", f"stop_reason is {first.stop_reason}"
    (use,) = [block for block in first.content if block.type == "tool_use"]
    assert (use.name, use.input) == ("get_weather", {"city": "Paris"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": SUNNY}
    question = {"role": "user", "content": WEATHER}
    answer = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
    messages = [question, answer, {"role": "user", "content": [result]}]
    second = server.message("", messages=messages, tools=[TOOL])
    assert "21" in text_of(second), f"the answer is {text_of(second)!r}"


@check(AREA, "a streamed call: `input_json_delta`s add up to the whole input")
def _(server: Subject) -> None:
    with server.claude.messages.stream(**server.asking_claude(WEATHER, tools=[TOOL])) as stream:
        pieces = [e.partial_json for e in stream if e.type == "input_json"]
        final = stream.get_final_message()
    assert json.loads("".join(pieces)) == {"city": "Paris"}
    (use,) = [block for block in final.content if block.type == "tool_use"]
    assert use.input == {"city": "Paris"}


@check(AREA, "`tool_choice`: `any`, a tool by name, `none`; one call at a time")
def _(server: Subject) -> None:
    def names(text: str, **choice: Any) -> list[str]:
        message = server.message(text, tools=[TOOL, OTHER], tool_choice=choice)
        return [block.name for block in message.content if block.type == "tool_use"]

    assert names(WEATHER, type="any")
    assert set(names(WEATHER, type="tool", name="ping")) == {"ping"}
    assert names(WEATHER, type="none") == []
    assert len(names(BOTH, type="any", disable_parallel_tool_use=True)) == 1


@check(AREA, "thoughts are a block with a signature, and can be sent back")
def _(server: Subject) -> None:
    question = "How much is 2 and 3?"
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = server.asking_claude(question, thinking=thinking, max_tokens=1500)
    with server.claude.messages.stream(**asked) as stream:
        message = stream.get_final_message()
    kinds = [block.type for block in message.content]
    assert kinds == ["thinking", "text"], f"the blocks are {kinds}"
    assert message.content[0].signature
    answer = {"role": "assistant", "content": [block.to_dict() for block in message.content]}
    messages = [{"role": "user", "content": question}, answer, {"role": "user", "content": "Sure?"}]
    assert server.message("", messages=messages).content


@check(AREA, "`role: system` among messages, and two messages of one role in a row")
def _(server: Subject) -> None:
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "user", "content": "Are you there?"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": CAPITAL},
    ]
    assert server.message("", messages=messages).content


@check(AREA, "structured output: `output_config.format`")
def _(server: Subject) -> None:
    schema = {
        "type": "object",
        "properties": {"size": {"type": "string", "enum": ["small", "large"]}},
        "required": ["size"],
        "additionalProperties": False,
    }
    config = {"format": {"type": "json_schema", "schema": schema}}
    message = server.message("Describe Paris.", output_config=config)
    assert json.loads(text_of(message))["size"] in ("small", "large")


@check(AREA, "refusals in Anthropic's envelope, also of unknown routes")
def _(server: Subject) -> None:
    missing = refused(lambda: server.message(CAPITAL, model="no-such-model"), 404)
    assert missing.type == "not_found_error", f"type is {missing.type!r}"
    wrong = refused(lambda: server.message(CAPITAL, max_tokens=-1))
    assert wrong.type == "invalid_request_error", f"type is {wrong.type!r}"
    assert wrong.request_id, "there is no request id"
    long = refused(lambda: server.message("word " * 20_000))
    assert long.type == "invalid_request_error"
    _, reply = server.post("/v1/messages/no_such", {}, **{"anthropic-version": "2023-06-01"})
    assert reply["type"] == "error", str(reply)[:80]
    assert server.message(CAPITAL, max_tokens=1).content


@check(AREA, "an image for a model that sees none is refused by name")
def _(server: Subject) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]
    error = refused(lambda: server.message("", messages=messages))
    assert names_a_picture(error), f"the sentence is {error.message!r}"


@check(AREA, "models in Anthropic's shape where `anthropic-version` is sent")
def _(server: Subject) -> None:
    ids = [model.id for model in server.claude.models.list()]
    assert server.model in ids
    assert server.claude.models.retrieve(server.model).type == "model"
