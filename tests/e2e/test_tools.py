"""Tools with the vendors' own clients, against a real service on the real Pocket model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from anthropic.types import TextBlock, ThinkingBlock, ToolUseBlock
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, Field

from tests.e2e.parley import Parley
from tests.sdk.published import Published, published

pytestmark = [pytest.mark.model, pytest.mark.sdk]
__all__ = ["published"]
WHOLE = "CreateChatCompletionResponse"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Get the weather of a city"}
OPENAI_TOOL = {"type": "function", "function": {**WEATHER, "parameters": CITY}}
ANTHROPIC_TOOL = {**WEATHER, "input_schema": CITY}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
BOTH = {"role": "user", "content": "What is the weather in Paris and in Rome?"}
SUNNY = '{"temperature": 21, "condition": "sunny"}'


class Ticket(BaseModel):
    """A tool that Pocket was never taught; with bounds, as it would not come to an end itself."""

    title: str = Field(max_length=20)
    priority: Literal["low", "high"]
    num_days: int = Field(ge=0, le=99)
    tags: list[Literal["bug", "wish"]] = Field(max_length=2)


@pytest.fixture
def client(parley: Parley) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", timeout=60) as client:
        yield client


@pytest.fixture
def claude(parley: Parley) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=parley.url, api_key="none", timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, *messages: Any, **options: Any) -> ChatCompletion:
    asked: dict[str, Any] = {"model": "pocket", "temperature": 0, "max_tokens": 200, **options}
    reply = client.chat.completions.create(messages=list(messages), **asked)
    assert isinstance(reply, ChatCompletion)
    return reply


def calls_of(reply: ChatCompletion) -> list[tuple[str, Any]]:
    calls = reply.choices[0].message.tool_calls or []
    functions = [c.function for c in calls if isinstance(c, ChatCompletionMessageFunctionToolCall)]
    assert len({call.id for call in calls}) == len(calls)
    return [(function.name, json.loads(function.arguments)) for function in functions]


def test_pocket_calls_a_tool_and_uses_what_it_answers(
    client: openai.OpenAI, published: Published
) -> None:
    first = ask(client, QUESTION, tools=[OPENAI_TOOL])
    published.check(WHOLE, first.model_dump(mode="json", exclude_unset=True))
    assert (first.choices[0].finish_reason, first.choices[0].message.content) == (
        "tool_calls",
        None,
    )
    assert calls_of(first) == [("get_weather", {"city": "Paris"})]
    message = first.choices[0].message
    call = (message.tool_calls or [])[0]
    counted = client.post(
        "/chat/completions/input_tokens",
        cast_to=dict[str, Any],
        body={"messages": [QUESTION], "tools": [OPENAI_TOOL]},
    )
    assert first.usage is not None
    assert counted["input_tokens"] == first.usage.prompt_tokens
    result = {"role": "tool", "tool_call_id": call.id, "content": SUNNY}
    second = ask(client, QUESTION, message.model_dump(), result, tools=[OPENAI_TOOL])
    assert second.choices[0].finish_reason == "stop"
    assert "21" in (second.choices[0].message.content or "")


def test_two_calls_at_once_or_only_one(client: openai.OpenAI) -> None:
    both = [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})]
    assert calls_of(ask(client, BOTH, tools=[OPENAI_TOOL])) == both
    one = ask(client, BOTH, tools=[OPENAI_TOOL], parallel_tool_calls=False)
    assert calls_of(one) == both[:1]


def test_a_stream_adds_up_to_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client, BOTH, tools=[OPENAI_TOOL])
    with client.chat.completions.stream(
        model="pocket",
        temperature=0,
        messages=[BOTH],  # type: ignore[list-item]
        tools=[OPENAI_TOOL],  # type: ignore[list-item]
    ) as stream:
        done = [e.name for e in stream if e.type == "tool_calls.function.arguments.done"]
        streamed = stream.get_final_completion()
    assert done == ["get_weather", "get_weather"]
    assert calls_of(streamed) == calls_of(whole)
    assert streamed.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "Ticket"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "Ticket"}}],
            },
        },
    ],
    ids=["required", "named", "allowed"],
)
def test_a_forced_call_satisfies_the_schema_whatever_the_model_makes_of_it(
    client: openai.OpenAI, choice: Any
) -> None:
    ticket = openai.pydantic_function_tool(Ticket)
    tools = [ticket] if choice == "required" else [OPENAI_TOOL, ticket]
    reply = ask(client, {"role": "user", "content": "Hello!"}, tools=tools, tool_choice=choice)
    ((name, arguments),) = calls_of(reply)[:1]
    assert name == "Ticket"
    Ticket.model_validate(arguments, strict=True)


def test_no_tool_is_called_where_none_may_be(client: openai.OpenAI) -> None:
    reply = ask(client, QUESTION, tools=[OPENAI_TOOL], tool_choice="none")
    assert (calls_of(reply), reply.choices[0].finish_reason) == ([], "stop")


def test_thoughts_come_before_calls_and_end_within_their_budget(client: openai.OpenAI) -> None:
    free = ask(client, QUESTION, tools=[OPENAI_TOOL], reasoning_effort="high")
    brief = ask(
        client,
        QUESTION,
        tools=[OPENAI_TOOL],
        reasoning_effort="high",
        extra_body={"reasoning_budget": 3},
    )
    thoughts = [reply.choices[0].message.model_extra or {} for reply in (free, brief)]
    long, short = (thought["reasoning_content"] for thought in thoughts)
    assert long.startswith(short)
    assert len(short) < len(long)
    assert calls_of(free) == calls_of(brief) == [("get_weather", {"city": "Paris"})]
    assert free.usage is not None
    assert free.usage.completion_tokens_details is not None
    assert (free.usage.completion_tokens_details.reasoning_tokens or 0) > 5


def test_the_thought_stays_in_the_text_where_that_is_asked_for(parley: Parley) -> None:
    with openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", timeout=60) as client:
        reply = client.post(
            "/chat/completions/think",
            cast_to=ChatCompletion,
            body={
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "temperature": 0,
            },
        )
    content = reply.choices[0].message.content or ""
    assert content.startswith("<think>\n")
    assert "Paris" in content.partition("</think>")[2]


def use(claude: anthropic.Anthropic, *messages: Any, **options: Any) -> anthropic.types.Message:
    asked: dict[str, Any] = {"model": "pocket", "max_tokens": 200, "tools": [ANTHROPIC_TOOL]}
    message: anthropic.types.Message = claude.messages.create(
        messages=list(messages), extra_body={"temperature": 0}, **asked | options
    )
    return message


def test_anthropics_round_trip(claude: anthropic.Anthropic) -> None:
    first = use(claude, QUESTION)
    (block,) = first.content
    assert isinstance(block, ToolUseBlock)
    assert (first.stop_reason, block.name, block.input) == (
        "tool_use",
        "get_weather",
        {"city": "Paris"},
    )
    result = {"type": "tool_result", "tool_use_id": block.id, "content": SUNNY}
    asked = [QUESTION, first.to_param(), {"role": "user", "content": [result]}]
    second = use(claude, *asked)
    (answer,) = second.content
    assert isinstance(answer, TextBlock)
    assert "21" in answer.text
    counted = claude.messages.count_tokens(
        model="pocket",
        messages=asked,  # type: ignore[arg-type]
        tools=[ANTHROPIC_TOOL],  # type: ignore[list-item]
    )
    usage = second.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_anthropics_stream_adds_up_to_the_whole_answer(claude: anthropic.Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    whole = use(claude, BOTH, thinking=thinking)
    with claude.messages.stream(
        model="pocket",
        max_tokens=200,
        messages=[BOTH],  # type: ignore[list-item]
        tools=[ANTHROPIC_TOOL],  # type: ignore[list-item]
        thinking=thinking,  # type: ignore[arg-type]
        extra_body={"temperature": 0},
    ) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        thought, *calls = message.content
        assert isinstance(thought, ThinkingBlock)
        inputs = [call.input for call in calls if isinstance(call, ToolUseBlock)]
        assert inputs == [{"city": "Paris"}, {"city": "Rome"}]
        assert message.stop_reason == "tool_use"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_anthropics_forced_call(claude: anthropic.Anthropic, choice: Any) -> None:
    hello = {"role": "user", "content": "Hello!"}
    message = use(claude, hello, tool_choice={**choice, "disable_parallel_tool_use": True})
    (block,) = message.content
    assert isinstance(block, ToolUseBlock)
    assert isinstance(block.input["city"], str)


def test_an_error_of_a_tool_reaches_the_model(claude: anthropic.Anthropic) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    failed = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "is_error": True,
        "content": [{"type": "text", "text": "The station does not answer."}],
    }
    turns = [QUESTION, {"role": "assistant", "content": [call]}]
    message = use(claude, *turns, {"role": "user", "content": [failed]})
    assert message.stop_reason in ("end_turn", "tool_use")
