"""The vendor's own client against a running server."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest

from service.domain.errors import QueueFull
from tests.fakes.engine import FakeEngine, loading
from tests.sdk.published import Published

pytestmark = pytest.mark.sdk
WHOLE, CHUNK = "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(answer="Paris, of course.")


async def ask(async_client: openai.AsyncOpenAI, **options: object) -> object:
    asked = {"messages": [{"role": "user", "content": "Capital of France?"}], **options}
    return await async_client.chat.completions.create(model="fake", **asked)  # type: ignore[call-overload]


async def test_a_plain_answer(async_client: openai.AsyncOpenAI, published: Published) -> None:
    reply = await async_client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "Capital of France?"}]
    )
    assert reply.choices[0].message.content == "Paris, of course."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 3
    published.check(WHOLE, reply.model_dump(mode="json", exclude_unset=True))


async def test_a_stream_adds_up_to_the_plain_answer(
    async_client: openai.AsyncOpenAI, published: Published
) -> None:
    stream = await async_client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Capital of France?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        published.check(CHUNK, chunk.model_dump(mode="json", exclude_unset=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Paris, of course."
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_the_vendors_accumulator_agrees(async_client: openai.AsyncOpenAI) -> None:
    async with async_client.chat.completions.stream(
        model="fake", messages=[{"role": "user", "content": "Capital of France?"}]
    ) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "Paris, of course."
    assert completion.choices[0].message.role == "assistant"


async def test_models(async_client: openai.AsyncOpenAI, published: Published) -> None:
    models = await async_client.models.list()
    assert [model.id for model in models.data] == ["fake"]
    model = await async_client.models.retrieve("fake")
    published.check("Model", model.model_dump(mode="json", exclude_unset=True))
    with pytest.raises(openai.NotFoundError) as raised:
        await async_client.models.retrieve("acme/large")
    assert raised.value.code == "model_not_found"


async def test_refusals_are_the_vendors_exceptions(async_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await ask(async_client, temperature=9)
    assert (bad.value.param, bad.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.NotFoundError) as missing:
        await async_client.chat.completions.create(
            model="gpt-9", messages=[{"role": "user", "content": "a"}]
        )
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        await async_client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "word " * 600}]
        )
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")


async def test_a_model_that_loads_is_a_503_with_a_time(
    async_client: openai.AsyncOpenAI, engine: FakeEngine
) -> None:
    engine.status = loading(0.5)
    with pytest.raises(openai.InternalServerError) as raised:
        await ask(async_client)
    assert raised.value.status_code == 503
    assert int(raised.value.response.headers["retry-after"]) >= 1


async def test_the_client_tries_again_when_told_to(url: str, engine: FakeEngine) -> None:
    """And sends no `Idempotency-Key`: docs/responses.md says what comes of it."""
    engine.refuses(QueueFull("64 requests are waiting.", retry_after_seconds=0.01))
    sent: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        sent.append(request)

    http_client = openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=1, http_client=http_client
    ) as client:
        reply = await client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "a"}]
        )
    assert reply.choices[0].message.content == "Paris, of course."
    assert [request.headers["x-stainless-retry-count"] for request in sent] == ["0", "1"]
    assert not [request for request in sent if "idempotency-key" in request.headers]


async def test_a_stream_that_breaks_raises(
    async_client: openai.AsyncOpenAI, engine: FakeEngine
) -> None:
    engine.paced = True
    stream = await async_client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "a"}], stream=True
    )
    await engine.write(1)
    chunks = aiter(stream)
    assert (await anext(chunks)).choices[0].delta.role == "assistant"
    engine.dies()
    with pytest.raises(openai.APIError) as raised:
        async for _ in chunks:
            pass
    assert raised.value.code == "engine_unavailable"


async def test_closing_a_stream_cancels(
    async_client: openai.AsyncOpenAI, engine: FakeEngine
) -> None:
    engine.paced = True
    stream = await async_client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "a"}], stream=True
    )
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(60):
        await engine.until(lambda: engine.cancelled)


async def test_the_blocking_client_works_too(url: str) -> None:
    def ask_and_wait() -> str | None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            reply = client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "a"}], max_tokens=2
            )
            return reply.choices[0].message.content

    assert await asyncio.to_thread(ask_and_wait) == "Paris, of"


async def test_log_probabilities(async_client: openai.AsyncOpenAI, published: Published) -> None:
    reply = await async_client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Capital of France?"}],
        logprobs=True,
        top_logprobs=2,
    )
    published.check(WHOLE, reply.model_dump(mode="json", exclude_unset=True))
    told = reply.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert "".join(entry.token for entry in told.content) == "Paris, of course."
    assert [len(entry.top_logprobs) for entry in told.content] == [2, 2, 2]
    assert bytes(told.content[0].bytes or []) == b"Paris,"


async def test_log_probabilities_ride_on_the_chunks_of_their_text(
    async_client: openai.AsyncOpenAI, published: Published
) -> None:
    stream = await async_client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Capital of France?"}],
        logprobs=True,
        stream=True,
    )
    async for chunk in stream:
        published.check(CHUNK, chunk.model_dump(mode="json", exclude_unset=True))
        choice = chunk.choices[0]
        told = (choice.logprobs and choice.logprobs.content) or []
        assert "".join(entry.token for entry in told) == (choice.delta.content or "")


async def test_several_choices(
    async_client: openai.AsyncOpenAI, engine: FakeEngine, published: Published
) -> None:
    engine.answers("Paris.", "It is Paris.", "Paris it is.")
    reply = await async_client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "Capital of France?"}], n=3
    )
    published.check(WHOLE, reply.model_dump(mode="json", exclude_unset=True))
    texts = [(choice.index, choice.message.content) for choice in reply.choices]
    assert texts == [(0, "Paris."), (1, "It is Paris."), (2, "Paris it is.")]
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 7


async def test_several_choices_in_one_stream(
    async_client: openai.AsyncOpenAI, engine: FakeEngine, published: Published
) -> None:
    engine.answers("Paris.", "It is Paris.")
    stream = await async_client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Capital of France?"}],
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    texts, ends, roles = ["", ""], [], []
    for chunk in chunks:
        published.check(CHUNK, chunk.model_dump(mode="json", exclude_unset=True))
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
            roles += [choice.index] if choice.delta.role else []
    assert texts == ["Paris.", "It is Paris."]
    assert (sorted(ends), sorted(roles)) == ([0, 1], [0, 1])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


async def test_more_choices_than_are_given_are_refused_by_number(
    async_client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="n is 9; it must be between 1 and 8"):
        await async_client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "Hi"}], n=9
        )


async def test_a_text_goes_on(
    async_client: openai.AsyncOpenAI, engine: FakeEngine, published: Published
) -> None:
    engine.answers(" a time there was a fox.")
    reply = await async_client.completions.create(
        model="fake", prompt="Once upon", logprobs=2, max_tokens=5
    )
    published.check("CreateCompletionResponse", reply.model_dump(mode="json", exclude_unset=True))
    choice = reply.choices[0]
    assert (choice.text, choice.finish_reason) == (" a time there was a", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == [" a", " time", " there", " was", " a"]
    assert choice.logprobs.text_offset == [0, 2, 7, 13, 17]
    assert [len(top) for top in choice.logprobs.top_logprobs or []] == [2] * 5
    prompt = engine.jobs[-1].prompt
    assert [(piece.text, piece.trusted) for piece in prompt] == [("Once upon", False)]


async def test_several_texts_go_on_in_one_stream(
    async_client: openai.AsyncOpenAI, engine: FakeEngine, published: Published
) -> None:
    engine.answers(" one.", " two.", " three.", " four.")
    stream = await async_client.completions.create(
        model="fake",
        prompt=["First", "Second"],
        n=2,
        echo=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, ends = [""] * 4, []
    usage = None
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ends += [choice.index] if choice.finish_reason else []
        usage = chunk.usage or usage
    assert texts == ["First one.", "First two.", "Second three.", "Second four."]
    assert sorted(ends) == [0, 1, 2, 3]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 4)


async def test_a_picture_for_a_model_that_reads_only_text_is_a_bad_request(
    async_client: openai.AsyncOpenAI,
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    with pytest.raises(openai.BadRequestError, match="reads only text") as refused:
        await ask(async_client, messages=[{"role": "user", "content": [picture]}])
    assert refused.value.param == "messages[0].content[0]"
