"""Reranking, and the model's words, in llama-server's vocabulary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.api.app import create_app
from service.settings import RerankSettings, Settings
from tests.api.running import connected_client, running_app
from tests.fakes.companion import RERANKER, FakeCompanion
from tests.fakes.engine import FakeEngine

DOCUMENTS = ["dogs bark", "the cat sat", "a cat"]


@pytest.fixture
def reranker(engine: FakeEngine) -> FakeCompanion:
    return engine.companion(RERANKER)


@pytest_asyncio.fixture
async def client(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    few = RerankSettings(model="any", max_inputs=4)
    async with running_app(engine, tmp_path, rerank=few) as app, connected_client(app) as client:
        yield client


async def rerank(client: httpx.AsyncClient, path: str = "/v1/rerank", **body: object) -> Any:
    reply = await client.post(path, json={"query": "cat", "documents": DOCUMENTS, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("path", ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"])
async def test_the_best_document_comes_first(
    path: str, client: httpx.AsyncClient, reranker: FakeCompanion
) -> None:
    assert await rerank(client, path) == {
        "model": "fake-reranker",
        "object": "list",
        "usage": {"prompt_tokens": 10, "total_tokens": 10},
        "results": [
            {"index": 2, "relevance_score": 0.5},
            {"index": 1, "relevance_score": pytest.approx(1 / 3)},
            {"index": 0, "relevance_score": 0.0},
        ],
    }


async def test_only_so_many_as_wanted(client: httpx.AsyncClient, reranker: FakeCompanion) -> None:
    reply = await rerank(client, top_n=1, return_documents=True)
    assert reply["results"] == [{"index": 2, "relevance_score": 0.5, "document": {"text": "a cat"}}]
    assert len((await rerank(client, top_n=99))["results"]) == 3


async def test_documents_may_be_objects_with_a_text(
    client: httpx.AsyncClient, reranker: FakeCompanion
) -> None:
    wrapped = [{"text": document} for document in DOCUMENTS]
    assert await rerank(client, documents=wrapped) == await rerank(client)


async def test_texts_are_answered_as_their_clients_expect(
    client: httpx.AsyncClient, reranker: FakeCompanion
) -> None:
    body = {"query": "cat", "texts": DOCUMENTS, "return_text": True, "top_n": 1}
    reply = await client.post("/rerank", json=body)
    assert reply.json() == [{"index": 2, "score": 0.5, "text": "a cat"}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"documents": ["a"]}, "query is missing."),
        ({"query": "", "documents": ["a"]}, "query is empty; send some text."),
        ({"query": "a"}, "documents is empty; send at least one."),
        ({"query": "a", "documents": []}, "documents is empty; send at least one."),
        ({"query": "a", "documents": ["a", ""]}, "documents[1] is empty; send some text."),
        ({"query": "a", "documents": ["a"] * 5}, "documents has 5 entries; at most 4"),
        ({"query": "a", "documents": [7]}, "documents[0] (7) is not accepted"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n is 0; it must be at least 1."),
        ({"query": "a", "documents": ["a"], "texts": ["a"]}, "Send either documents or texts."),
        ({"query": "a", "documents": ["a"], "model": "fake"}, "There is no model `fake` here that"),
    ],
)
async def test_what_cannot_be_ranked_is_refused_by_name(
    body: dict[str, Any], message: str, client: httpx.AsyncClient, reranker: FakeCompanion
) -> None:
    reply = await client.post("/v1/rerank", json=body)
    error = reply.json()["error"]
    assert message in error["message"]
    assert reply.status_code == error["code"] == (404 if "model" in body else 400)
    assert not reranker.questions


async def test_a_service_without_a_reranking_model_says_how_to_get_one(
    engine: FakeEngine, tmp_path: Path
) -> None:
    app = create_app(Settings(state_dir=tmp_path), engines=engine)
    async with app.router.lifespan_context(app), connected_client(app) as client:
        reply = await client.post("/v1/rerank", json={"query": "a", "documents": ["a"]})
    error = reply.json()["error"]
    assert (error["code"], error["type"]) == (400, "not_supported_error")
    assert "PARLEY_RERANK__MODEL" in error["message"]


async def test_text_becomes_token_ids_and_text_again(client: httpx.AsyncClient) -> None:
    body = {"content": "Hello there, Hello", "add_special": True}
    tokens = (await client.post("/tokenize", json=body)).json()["tokens"]
    assert tokens == [0, 1, 2, 3]
    reply = await client.post("/detokenize", json={"tokens": tokens})
    assert reply.json() == {"content": "[BEGIN]Hello there, Hello"}


async def test_tokens_come_with_their_pieces(client: httpx.AsyncClient) -> None:
    body = {"content": "Hello there", "with_pieces": True}
    assert (await client.post("/tokenize", json=body)).json() == {
        "tokens": [{"id": 1, "piece": "Hello"}, {"id": 2, "piece": " there"}]
    }


async def test_nothing_is_nothing(client: httpx.AsyncClient) -> None:
    assert (await client.post("/tokenize", json={})).json() == {"tokens": []}
    assert (await client.post("/detokenize", json={})).json() == {"content": ""}


async def test_words_of_another_model_can_be_asked_for_by_its_name(
    client: httpx.AsyncClient, reranker: FakeCompanion
) -> None:
    body = {"content": "Hello", "model": "fake-reranker"}
    assert (await client.post("/tokenize", json=body)).json() == {"tokens": [1]}
    assert len(reranker.questions) == 1
    reply = await client.post("/tokenize", json={"content": "Hello", "model": "other"})
    assert reply.status_code == 404


@pytest.mark.parametrize("tokens", [[-1], [2**31], [999]])
async def test_what_is_no_token_id_is_refused(tokens: list[int], client: httpx.AsyncClient) -> None:
    reply = await client.post("/detokenize", json={"tokens": tokens})
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_props_say_what_clients_ask_for(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    facts = (await client.get("/props")).json()
    assert facts["model_alias"] == "fake"
    assert facts["total_slots"] == 4
    assert facts["default_generation_settings"] == {"n_ctx": 512}
    engine.dies()
    assert (await client.get("/props")).status_code == 503
