"""Vectors and scores within what an access token may take, counted in a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.auth.spending import Spending
from service.chat.embed import Vectors
from service.domain.access import Limits, Principal
from service.domain.errors import Forbidden, QueueFull, RateLimited
from service.domain.vectors import EmbedRequest, RerankRequest
from service.settings import EmbedSettings, RerankSettings, Settings
from service.store.database import open_database
from service.store.spending import SqlSpending
from tests.fakes.companion import EMBEDDER, RERANKER, FakeCompanion
from tests.fakes.engine import FakeEngine

SEVEN = EmbedRequest(("one two three", (1, 2, 3, 4)))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def embedder(engine: FakeEngine) -> FakeCompanion:
    engine.companion(RERANKER)
    return engine.companion(EMBEDDER)


@pytest_asyncio.fixture
async def spending(tmp_path: Path) -> AsyncIterator[Spending]:
    database = await open_database(Settings(state_dir=tmp_path))
    spending = Spending(SqlSpending(database))
    yield spending
    await spending.aclose()
    await database.aclose()


@pytest.fixture
def vectors(engine: FakeEngine, embedder: FakeCompanion, spending: Spending) -> Vectors:
    models = EmbedSettings(model="any"), RerankSettings(model="any")
    return Vectors(engine, *models, spending)


def guest(**limits: object) -> Principal:
    return Principal("guest", limits=Limits(**limits))  # type: ignore[arg-type]


async def spent(spending: Spending) -> dict[str, int]:
    return {row.model: row.prompt_tokens for row in await spending.spent("guest", "2000-01-01")}


async def test_tokens_are_counted_by_model(vectors: Vectors, spending: Spending) -> None:
    await vectors.embed(SEVEN, guest())
    await vectors.rerank(RerankRequest("a", ("b c",)), guest())
    assert await spent(spending) == {"fake-embedder": 7, "fake-reranker": 3}


async def test_what_is_over_the_limit_is_refused_before_it_is_asked_for(
    vectors: Vectors, embedder: FakeCompanion, spending: Spending
) -> None:
    twenty = guest(tokens_per_day=20)
    await vectors.embed(SEVEN, twenty)
    await vectors.embed(SEVEN, twenty)
    with pytest.raises(RateLimited):
        await vectors.embed(SEVEN, twenty)
    assert len(embedder.questions) == 2
    assert await spent(spending) == {"fake-embedder": 14}


async def test_what_the_engine_refuses_costs_nothing(
    vectors: Vectors, embedder: FakeCompanion, spending: Spending
) -> None:
    ten = guest(tokens_per_day=10)
    embedder.refuses(QueueFull("full"))
    with pytest.raises(QueueFull):
        await vectors.embed(SEVEN, ten)
    await vectors.embed(SEVEN, ten)
    assert await spent(spending) == {"fake-embedder": 7}


async def test_a_token_for_certain_models_opens_no_others(
    vectors: Vectors, embedder: FakeCompanion
) -> None:
    with pytest.raises(Forbidden):
        await vectors.embed(SEVEN, guest(models=("fake",)))
    assert not embedder.questions
