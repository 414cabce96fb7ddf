"""The vendor's own client against a running server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import pytest
import pytest_asyncio
from anthropic.types import Message, MessageParam, TextBlock, ThinkingBlock

from service.domain.errors import GenerationFailed, QueueFull
from tests.fakes.engine import FakeEngine, loading

pytestmark = pytest.mark.sdk
QUESTION: MessageParam = {"role": "user", "content": "Capital of France?"}
THOUGHTFUL = "<think>France, so</think>Paris, of course."


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(answer="Paris, of course.")


@pytest_asyncio.fixture
async def client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


async def ask(client: anthropic.AsyncAnthropic, **options: Any) -> Message:
    asked: dict[str, Any] = {"model": "fake", "max_tokens": 64, "messages": [QUESTION], **options}
    message: Message = await client.messages.create(**asked)
    return message


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


async def test_a_plain_answer(client: anthropic.AsyncAnthropic) -> None:
    message = await ask(client, system="Be brief.")
    Message.model_validate(message.model_dump(), strict=True)
    assert (message.type, message.role, message.model) == ("message", "assistant", "fake")
    assert (text_of(message), message.stop_reason) == ("Paris, of course.", "end_turn")
    assert message.usage.output_tokens == 3
    assert message._request_id


async def test_a_stream_adds_up_to_the_plain_answer(client: anthropic.AsyncAnthropic) -> None:
    plain = await ask(client)
    async with client.messages.stream(model="fake", max_tokens=64, messages=[QUESTION]) as stream:
        pieces = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert pieces == ["Paris,", " of", " course."]
    same = {"content", "stop_reason", "stop_sequence", "usage", "model", "role", "type"}
    assert message.model_dump(include=same) == plain.model_dump(include=same)


async def test_raw_events_come_in_the_published_order(client: anthropic.AsyncAnthropic) -> None:
    stream = await client.messages.create(
        model="fake", max_tokens=64, messages=[QUESTION], stream=True
    )
    names = [event.type async for event in stream]
    deltas = ["content_block_delta"] * 3
    assert names == [
        "message_start",
        "content_block_start",
        *deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_thoughts_are_a_block_of_their_own(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    engine.answers(THOUGHTFUL, THOUGHTFUL)
    plain = await ask(client, thinking={"type": "enabled", "budget_tokens": 1024})
    async with client.messages.stream(
        model="fake", max_tokens=64, messages=[QUESTION], thinking={"type": "adaptive"}
    ) as stream:
        streamed = await stream.get_final_message()
    for message in (plain, streamed):
        thought, answer = message.content
        assert isinstance(thought, ThinkingBlock)
        assert isinstance(answer, TextBlock)
        assert (thought.thinking, answer.text) == ("France, so", "Paris, of course.")
        assert thought.signature


async def test_an_answer_with_thoughts_can_be_sent_back(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    engine.answers(THOUGHTFUL)
    first = await ask(client, thinking={"type": "adaptive"})
    follow_up: MessageParam = {"role": "user", "content": "Sure?"}
    second = await ask(client, messages=[QUESTION, first.to_param(), follow_up])
    assert text_of(second) == "Paris, of course."


async def test_unasked_thoughts_are_left_out(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    engine.answers(THOUGHTFUL)
    assert [block.type for block in (await ask(client)).content] == ["text"]


async def test_stop_sequences_and_limits_are_told_apart(client: anthropic.AsyncAnthropic) -> None:
    stopped = await ask(client, stop_sequences=["course"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "course")
    cut = await ask(client, max_tokens=2)
    assert (cut.stop_reason, text_of(cut)) == ("max_tokens", "Paris, of")


async def test_counted_tokens_are_those_of_the_answer(client: anthropic.AsyncAnthropic) -> None:
    usage = (await ask(client, system="Be brief.")).usage
    counted = await client.messages.count_tokens(
        model="fake", system="Be brief.", messages=[QUESTION]
    )
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert counted.input_tokens == usage.input_tokens + cached


async def test_the_beta_client_works_too(client: anthropic.AsyncAnthropic) -> None:
    message = await client.beta.messages.create(
        model="fake", max_tokens=64, messages=[{"role": "user", "content": "a"}], betas=["x"]
    )
    assert message.stop_reason == "end_turn"


async def test_a_tools_result_in_the_history_is_read(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    history = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": 1}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 degrees"}],
        },
    ]
    await ask(client, messages=history)
    assert "18 degrees" in "".join(piece.text for piece in engine.jobs[0].prompt)


async def test_models(client: anthropic.AsyncAnthropic) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["fake"]
    model = await client.models.retrieve("fake")
    assert (model.type, model.created_at.year, model.max_input_tokens) == ("model", 2023, 512)
    with pytest.raises(anthropic.NotFoundError) as raised:
        await client.models.retrieve("acme/large")
    assert raised.value.type == "not_found_error"


async def test_refusals_are_the_vendors_exceptions(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="temperature is 9") as bad:
        await ask(client, extra_body={"temperature": 9})
    assert (bad.value.type, bool(bad.value.request_id)) == ("invalid_request_error", True)
    with pytest.raises(anthropic.NotFoundError, match="claude-9") as missing:
        await ask(client, model="claude-9")
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await ask(client, messages=[{"role": "user", "content": "word " * 600}])
    with pytest.raises(anthropic.RequestTooLargeError, match="request_too_large"):
        await ask(client, system="a" * 5_000_000)


async def test_faults_are_the_vendors_exceptions(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    engine.refuses(QueueFull("64 requests are waiting.", retry_after_seconds=1))
    with pytest.raises(anthropic.OverloadedError) as overloaded:
        await ask(client)
    assert overloaded.value.response.headers["retry-after"] == "1"
    engine.refuses(GenerationFailed("It broke."))
    with pytest.raises(anthropic.InternalServerError):
        await ask(client)
    engine.status = loading(0.5)
    with pytest.raises(anthropic.ServiceUnavailableError) as raised:
        await ask(client)
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_the_client_tries_again_when_told_to(url: str, engine: FakeEngine) -> None:
    engine.refuses(QueueFull("64 requests are waiting.", retry_after_seconds=0.01))
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=1) as client:
        assert text_of(await ask(client)) == "Paris, of course."


async def test_a_stream_that_breaks_raises(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    engine.paced = True
    async with client.messages.stream(model="fake", max_tokens=64, messages=[QUESTION]) as stream:
        await engine.write(1)
        pieces = aiter(stream.text_stream)
        assert await anext(pieces) == "Paris,"
        engine.dies()
        with pytest.raises(anthropic.APIStatusError) as raised:
            async for _ in pieces:
                pass
    assert raised.value.type == "api_error"


async def test_closing_a_stream_cancels(
    client: anthropic.AsyncAnthropic, engine: FakeEngine
) -> None:
    engine.paced = True
    stream = await client.messages.create(
        model="fake", max_tokens=64, messages=[QUESTION], stream=True
    )
    assert (await anext(aiter(stream))).type == "message_start"
    await stream.close()
    async with asyncio.timeout(60):
        await engine.until(lambda: engine.cancelled)


async def test_the_blocking_client_works_too(url: str) -> None:
    def ask_and_wait() -> Message:
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
            return client.messages.create(model="fake", max_tokens=2, messages=[QUESTION])

    assert text_of(await asyncio.to_thread(ask_and_wait)) == "Paris, of"


async def test_a_picture_for_a_model_that_reads_only_text_is_a_bad_request(
    client: anthropic.AsyncAnthropic,
) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
    said = {"role": "user", "content": [{"type": "image", "source": source}]}
    with pytest.raises(anthropic.BadRequestError, match="reads only text"):
        await ask(client, messages=[said])


async def test_the_client_tries_again_without_an_idempotency_key(
    url: str, engine: FakeEngine
) -> None:
    """docs/responses.md says what comes of it."""
    engine.refuses(QueueFull("64 requests are waiting.", retry_after_seconds=0.01))
    sent: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    http_client = anthropic.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
    async with anthropic.AsyncAnthropic(
        base_url=url, api_key="none", max_retries=1, http_client=http_client
    ) as client:
        await client.messages.create(
            model="fake", max_tokens=9, messages=[{"role": "user", "content": "a"}]
        )
    assert [request.headers["x-stainless-retry-count"] for request in sent] == ["0", "1"]
    assert not [request for request in sent if "idempotency-key" in request.headers]
