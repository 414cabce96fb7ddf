"""Tools and thoughts as the vendors' clients read them, held to the published schema."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from anthropic.types import TextBlock, ToolUseBlock

from tests.fakes.engine import FakeEngine
from tests.sdk.published import Published

pytestmark = pytest.mark.sdk
WHOLE, CHUNK = "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": CITY}}
QUESTION = {"role": "user", "content": "How is it in Paris and Rome?"}
CALLS = (
    '<tool_call>\n{"name": "look", "arguments": {"city": "Paris 😀"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "look", "arguments": {"city": "東京"}}\n</tool_call>'
)
THOUGHTFUL = f"<think>\nBoth, so\n</think>\n\nI look.\n\n{CALLS}"
CITIES = [{"city": "Paris 😀"}, {"city": "東京"}]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(answer=THOUGHTFUL)


@pytest_asyncio.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def asking(**options: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [QUESTION], "tools": [TOOL], **options}


async def test_a_whole_answer_with_calls(
    async_client: openai.AsyncOpenAI, published: Published
) -> None:
    reply = await async_client.chat.completions.create(**asking(reasoning_effort="high"))
    published.check(WHOLE, reply.model_dump(mode="json", exclude_unset=True))
    message = reply.choices[0].message
    assert (message.content, reply.choices[0].finish_reason) == ("I look.", "tool_calls")
    assert (message.model_extra or {})["reasoning_content"] == "Both, so"
    functions = [call.to_dict()["function"] for call in message.tool_calls or ()]
    assert [json.loads(function["arguments"]) for function in functions] == CITIES


async def test_each_frame_of_a_stream_with_calls(
    async_client: openai.AsyncOpenAI, published: Published
) -> None:
    stream = await async_client.chat.completions.create(
        **asking(stream=True, stream_options={"include_usage": True})
    )
    frames = [frame async for frame in stream]
    for frame in frames:
        published.check(CHUNK, frame.model_dump(mode="json", exclude_unset=True))
    deltas = [frame.choices[0].delta for frame in frames if frame.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.index for call in calls if call.id] == [0, 1]
    assert [call.function.name for call in calls if call.function and call.function.name] == [
        "look",
        "look",
    ]
    assert frames[-1].usage is not None


async def test_the_accumulators_of_both_vendors_agree(
    async_client: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    async with async_client.chat.completions.stream(**asking()) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == CITIES
    tool: Any = {"name": "look", "input_schema": CITY}
    question: Any = QUESTION
    async with claude.messages.stream(
        model="fake", max_tokens=64, messages=[question], tools=[tool]
    ) as events:
        message = await events.get_final_message()
    text, *uses = message.content
    assert isinstance(text, TextBlock)
    assert text.text == "I look."
    assert [use.input for use in uses if isinstance(use, ToolUseBlock)] == CITIES
    assert message.stop_reason == "tool_use"


async def test_a_broken_call_is_no_fault_of_the_service(
    async_client: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    broken = '<tool_call>\n{"name": "look", "arguments": {"city": "Par'
    engine.answers(broken, broken)
    reply = await async_client.chat.completions.create(**asking())
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.to_dict()["function"] == {"name": "look", "arguments": '{"city": "Par'}
    tool: Any = {"name": "look", "input_schema": CITY}
    question: Any = QUESTION
    message = await claude.messages.create(
        model="fake", max_tokens=64, messages=[question], tools=[tool]
    )
    (block,) = message.content
    assert isinstance(block, TextBlock)
    assert block.text == 'look: {"city": "Par'
