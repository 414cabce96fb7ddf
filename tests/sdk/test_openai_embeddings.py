"""Embeddings through the vendor's own client."""

from __future__ import annotations

import openai
import pytest

from service.domain.errors import ContextLengthExceeded, QueueFull
from tests.fakes.companion import EMBEDDER, FakeCompanion
from tests.fakes.engine import FakeEngine
from tests.sdk.published import Published

pytestmark = pytest.mark.sdk
REPLY = "CreateEmbeddingResponse"


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.companion(EMBEDDER)
    return engine


@pytest.fixture
def embedder(engine: FakeEngine) -> FakeCompanion:
    return engine.companions[EMBEDDER.mode]


async def test_the_client_decodes_the_base64_that_it_asks_for(
    async_client: openai.AsyncOpenAI, published: Published
) -> None:
    reply = await async_client.embeddings.create(model="fake-embedder", input=["one two", "three"])
    assert [entry.embedding for entry in reply.data] == [[2.0, 0, 0, 0], [1.0, 0, 0, 0]]
    assert [entry.index for entry in reply.data] == [0, 1]
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (3, 3)
    published.check(REPLY, reply.model_dump(mode="json", exclude_unset=True))


async def test_plain_numbers_follow_the_published_schema(
    async_client: openai.AsyncOpenAI, published: Published
) -> None:
    raw = await async_client.embeddings.with_raw_response.create(
        model="fake-embedder", input=[[1, 2, 3]], encoding_format="float", dimensions=3
    )
    assert raw.parse().data[0].embedding == [3.0, 0.0, 0.0]
    published.check(REPLY, raw.http_response.json())


async def test_refusals_are_the_clients_own_errors(
    async_client: openai.AsyncOpenAI, embedder: FakeCompanion
) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await async_client.embeddings.create(model="text-embedding-3-small", input="one")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="dimensions is 9"):
        await async_client.embeddings.create(model="fake-embedder", input="one", dimensions=9)
    embedder.refuses(ContextLengthExceeded("input[0] has 9 tokens.", param="input"))
    with pytest.raises(openai.BadRequestError) as long:
        await async_client.embeddings.create(model="fake-embedder", input="one")
    assert long.value.code == "context_length_exceeded"


async def test_the_client_comes_back_to_a_full_queue(
    async_client: openai.AsyncOpenAI, embedder: FakeCompanion
) -> None:
    embedder.refuses(QueueFull("3 requests are waiting.", retry_after_seconds=0.1))
    patient = async_client.with_options(max_retries=1)
    reply = await patient.embeddings.create(model="fake-embedder", input="one")
    assert len(reply.data) == 1
