"""Tools and structured outputs in `/v1/chat/completions`."""

from __future__ import annotations

import json
from typing import Any, Literal

from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, Field

from tests.conformance.checks import Subject, check

TOOLS = "Tools"
OUTPUTS = "Structured outputs"
WEATHER = "What is the weather in Paris?"
BOTH = "What is the weather in Paris and in Rome?"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
ABOUT = {"name": "get_weather", "description": "Get the weather of a city"}
TOOL = {"type": "function", "function": {**ABOUT, "parameters": CITY}}
OTHER = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}
SUNNY = '{"temperature": 21, "condition": "sunny"}'


class Place(BaseModel):
    """With bounds, as a small model would not come to an end itself."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]
    num_rivers: int = Field(ge=0, le=9)


def calls_of(message: Any) -> list[tuple[str, Any]]:
    functions = [
        call.function
        for call in message.tool_calls or ()
        if isinstance(call, ChatCompletionMessageFunctionToolCall)
    ]
    return [(function.name, json.loads(function.arguments)) for function in functions]


@check(TOOLS, "a round trip: the call, its result, the answer that uses it")
def _(server: Subject) -> None:
    first = server.chat(WEATHER, tools=[TOOL]).choices[0]
    assert first.finish_reason == "tool_calls", f"finish_reason is {first.finish_reason}"
    assert calls_of(first.message) == [("get_weather", {"city": "Paris"})]
    result = {"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": SUNNY}
    question = {"role": "user", "content": WEATHER}
    messages = [question, first.message.to_dict(), result]
    second = server.chat("", messages=messages, tools=[TOOL]).choices[0]
    assert second.finish_reason == "stop"
    assert "21" in second.message.content, f"the answer is {second.message.content!r}"


@check(TOOLS, "a streamed call: id, type and name once, arguments in pieces that add up")
def _(server: Subject) -> None:
    chunks = list(server.chat(WEATHER, tools=[TOOL], stream=True))
    deltas = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or ()]
    assert [delta.id is not None for delta in deltas].count(True) == 1
    assert [d.function.name for d in deltas if d.function.name] == ["get_weather"]
    assert {delta.index for delta in deltas} == {0}
    written = "".join(delta.function.arguments or "" for delta in deltas)
    assert json.loads(written) == {"city": "Paris"}


@check(TOOLS, "`tool_choice`: `required`, a tool by name, `none`")
def _(server: Subject) -> None:
    required = server.chat("Hello.", tools=[TOOL], tool_choice="required", max_tokens=200)
    assert next(name for name, _ in calls_of(required.choices[0].message)) == "get_weather"
    named = {"type": "function", "function": {"name": "ping"}}
    reply = server.chat(WEATHER, tools=[TOOL, OTHER], tool_choice=named, max_tokens=200)
    assert next(name for name, _ in calls_of(reply.choices[0].message)) == "ping"
    none = server.chat(WEATHER, tools=[TOOL], tool_choice="none", max_tokens=60)
    assert not none.choices[0].message.tool_calls


@check(TOOLS, "`tool_choice: allowed_tools`")
def _(server: Subject) -> None:
    tools = [{"type": "function", "function": {"name": "ping"}}]
    allowed = {"mode": "required", "tools": tools}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    reply = server.chat(WEATHER, tools=[TOOL, OTHER], tool_choice=choice, max_tokens=200)
    assert {name for name, _ in calls_of(reply.choices[0].message)} == {"ping"}


@check(TOOLS, "two calls at once; one with `parallel_tool_calls: false`")
def _(server: Subject) -> None:
    both = server.chat(BOTH, tools=[TOOL])
    names = [name for name, _ in calls_of(both.choices[0].message)]
    assert names == ["get_weather"] * 2, f"the calls are {names}"
    assert len({call.id for call in both.choices[0].message.tool_calls}) == 2
    one = server.chat(BOTH, tools=[TOOL], parallel_tool_calls=False)
    assert len(calls_of(one.choices[0].message)) == 1


@check(TOOLS, "the older `functions` and `function_call`")
def _(server: Subject) -> None:
    body = server.asking(WEATHER, functions=[TOOL["function"]], function_call="auto")
    status, reply = server.post("/v1/chat/completions", body)
    assert status == 200, str(reply)
    message = reply["choices"][0]["message"]
    call = message.get("function_call") or message["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"


@check(OUTPUTS, "`json_object`")
def _(server: Subject) -> None:
    form = {"type": "json_object"}
    reply = server.chat("Describe Paris as JSON.", response_format=form, max_tokens=400)
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)


@check(OUTPUTS, "`json_schema`, parsed by openai-python into a model of the caller's")
def _(server: Subject) -> None:
    asked: Any = server.asking("Describe Paris.", max_tokens=400)
    reply = server.openai.chat.completions.parse(response_format=Place, **asked)
    assert isinstance(reply.choices[0].message.parsed, Place)


@check(OUTPUTS, "`json_schema` in a stream, which adds up to what the schema allows")
def _(server: Subject) -> None:
    asked: Any = server.asking("Describe Rome.", max_tokens=400)
    with server.openai.chat.completions.stream(response_format=Place, **asked) as stream:
        completion = stream.get_final_completion()
    assert isinstance(completion.choices[0].message.parsed, Place)


@check(OUTPUTS, "a schema that cannot be held to is refused")
def _(server: Subject) -> None:
    schema = {"name": "x", "strict": True, "schema": {"type": "no-such-type"}}
    body = server.asking("Hi.", max_tokens=8)
    body["response_format"] = {"type": "json_schema", "json_schema": schema}
    status, reply = server.post("/v1/chat/completions", body)
    assert status == 400, f"{status}: {str(reply)[:80]}"
