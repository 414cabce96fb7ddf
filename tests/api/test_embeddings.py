"""`/v1/embeddings`: what may be sent, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.api.app import create_app
from service.domain.errors import ContextLengthExceeded, QueueFull
from service.ipc.messages import Embed
from service.settings import EmbedSettings, Settings
from tests.api.running import connected_client, listening, running_app
from tests.fakes.companion import EMBEDDER, FakeCompanion
from tests.fakes.engine import FakeEngine


@pytest.fixture
def embedder(engine: FakeEngine) -> FakeCompanion:
    return engine.companion(EMBEDDER)


@pytest_asyncio.fixture
async def client(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    few = EmbedSettings(model="any", max_inputs=4)
    async with running_app(engine, tmp_path, embed=few) as app, connected_client(app) as client:
        yield client


async def embed(client: httpx.AsyncClient, given: object, **more: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"input": given, **more})


def vectors(reply: httpx.Response) -> list[Any]:
    assert reply.status_code == 200, reply.text
    data = reply.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return [entry["embedding"] for entry in data]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("one two", ("one two",)),
        (["one two"], ("one two",)),
        (["one", "two three"], ("one", "two three")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["one", [2, 3]], ("one", (2, 3))),
    ],
)
async def test_inputs_come_in_four_shapes(
    given: object,
    inputs: tuple[object, ...],
    client: httpx.AsyncClient,
    embedder: FakeCompanion,
) -> None:
    found = vectors(await embed(client, given))
    lengths = [len(i.split()) if isinstance(i, str) else len(i) for i in inputs]  # type: ignore[arg-type]
    assert found == [[n, 0.0, 0.0, 0.0] for n in lengths]
    (question,) = embedder.questions
    assert isinstance(question, Embed)
    assert question.inputs == inputs


async def test_the_reply_says_which_model_and_how_many_tokens(
    client: httpx.AsyncClient, embedder: FakeCompanion
) -> None:
    reply = (await embed(client, ["one two", "three"], model="fake-embedder", user="me")).json()
    assert reply["model"] == "fake-embedder"
    assert reply["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_base64_has_the_same_numbers(
    client: httpx.AsyncClient, embedder: FakeCompanion
) -> None:
    (vector,) = vectors(await embed(client, "one two", encoding_format="base64"))
    assert struct.unpack("<4f", base64.b64decode(vector)) == (2.0, 0.0, 0.0, 0.0)


async def test_dimensions_are_passed_on_and_bounded_by_the_models(
    client: httpx.AsyncClient, embedder: FakeCompanion
) -> None:
    assert vectors(await embed(client, "one two", dimensions=2)) == [[2.0, 0.0]]
    error = (await embed(client, "one", dimensions=5)).json()["error"]
    assert (error["message"], error["param"]) == (
        "dimensions is 5; the vectors of fake-embedder have 4.",
        "dimensions",
    )


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({}, "input is missing.", "input"),
        ({"input": []}, "input is empty; send at least one text.", "input"),
        ({"input": ""}, "input[0] is empty; send some text.", "input"),
        ({"input": ["a", ""]}, "input[1] is empty; send some text.", "input"),
        ({"input": [[]]}, "input[0] is empty; send some text.", "input"),
        ({"input": ["a"] * 5}, "input has 5 entries; at most 4 are accepted.", "input"),
        ({"input": None}, "input is not accepted: send a text, a list of texts, or token ids.", ""),
        ({"input": 7}, "input (7) is not accepted: send a text, a list of texts, or", ""),
        ({"input": ["a", True]}, "is not accepted: entry 1 is neither a text nor token ids.", ""),
        ({"input": [-1]}, "is not accepted: entry 0 is neither a text nor token ids.", ""),
        ({"input": [[2**40]]}, "is not accepted: entry 0 is neither a text nor token ids.", ""),
        ({"input": "\ud800"}, "Half a surrogate pair is not a character", ""),
        ({"input": "a", "dimensions": 0}, "dimensions is 0; it must be at least 1.", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format ('hex') is not accepted", ""),
        ({"input": "a", "model": "fake"}, "There is no model `fake` here that makes emb", "model"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    body: dict[str, Any],
    message: str,
    param: str,
    client: httpx.AsyncClient,
    embedder: FakeCompanion,
) -> None:
    # The plain encoder writes half a surrogate pair as JSON can spell it.
    headers = {"Content-Type": "application/json"}
    reply = await client.post("/v1/embeddings", content=json.dumps(body), headers=headers)
    error = reply.json()["error"]
    assert reply.status_code == (404 if param == "model" else 400)
    assert message.lower() in error["message"].lower()
    if param:
        assert error["param"] == param
    assert not embedder.questions
    assert len(vectors(await embed(client, "one"))) == 1


async def test_a_service_without_an_embedding_model_says_how_to_get_one(
    engine: FakeEngine, tmp_path: Path
) -> None:
    app = create_app(Settings(state_dir=tmp_path), engines=engine)
    async with app.router.lifespan_context(app), connected_client(app) as client:
        reply = await embed(client, "one")
    assert reply.status_code == 400
    assert "PARLEY_EMBED__MODEL" in reply.json()["error"]["message"]


async def test_while_the_model_is_away_the_client_is_told_to_come_back(
    client: httpx.AsyncClient,
) -> None:
    reply = await embed(client, "one")
    assert reply.status_code == 503
    assert int(reply.headers["Retry-After"]) >= 1


async def test_a_full_queue_and_a_long_input_are_the_engines_to_refuse(
    client: httpx.AsyncClient, embedder: FakeCompanion
) -> None:
    embedder.refuses(QueueFull("3 requests are waiting.", retry_after_seconds=7))
    reply = await embed(client, "one")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "7")
    embedder.refuses(ContextLengthExceeded("input[0] has 9 tokens.", param="input"))
    reply = await embed(client, "one")
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


async def test_a_client_that_hangs_up_cancels_its_work(
    engine: FakeEngine, embedder: FakeCompanion, tmp_path: Path
) -> None:
    embedder.hangs = True
    settings = Settings(state_dir=tmp_path, embed=EmbedSettings(model="any"))
    app = create_app(settings, engines=engine)
    async with app.router.lifespan_context(app), listening(app) as url:
        async with httpx.AsyncClient(timeout=60) as client:
            asking = asyncio.create_task(client.post(f"{url}/v1/embeddings", json={"input": "a"}))
            await embedder.until(lambda: embedder.questions)
            asking.cancel()
        await embedder.until(lambda: embedder.cancelled)


async def test_the_list_of_models_has_it(
    client: httpx.AsyncClient, embedder: FakeCompanion
) -> None:
    listed = (await client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["fake", "fake-embedder"]
    assert (await client.get("/v1/models/fake-embedder")).json()["id"] == "fake-embedder"
