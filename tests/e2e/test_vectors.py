"""A service with an embedding and a reranking model beside the one that chats."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.parley import Parley, running_parley
from tests.e2e.processes import engine_of
from tests.engine.encoder_file import RandomEncoder
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

# Slow enough for something to happen while it reads.
ENCODER = RandomEncoder(layers=4, width=256, feed_forward=1024, context_length=512)
RANKER = RandomEncoder(pooling="rank")
LONG = ["the " * 500] * 20


@pytest.fixture
def parley(tmp_path: Path) -> Iterator[Parley]:
    environment = {
        "PARLEY_EMBED__MODEL": str(ENCODER.write(tmp_path / "encoder.gguf")),
        "PARLEY_RERANK__MODEL": str(RANKER.write(tmp_path / "ranker.gguf")),
    }
    arguments = ("--model", "pocket", "--workers", "1")
    with running_parley(tmp_path, *arguments, environment=environment) as service:
        service.wait_healthy()
        wait_for_models(service, "pocket", "encoder", "ranker")
        yield service


def wait_for_models(service: Parley, *names: str) -> None:
    def served() -> list[str]:
        return [model["id"] for model in service.get("/v1/models").json()["data"]]

    until(served, lambda found: found == list(names))


def embed(service: Parley, inputs: list[str]) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/embeddings", json={"input": inputs}, timeout=180)


def test_texts_become_the_models_vectors_and_documents_are_put_in_order(parley: Parley) -> None:
    client = openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", max_retries=0)
    texts = ["the cat sat on the mat", "zebra"]
    made = client.embeddings.create(model="encoder", input=texts)
    expected = np.stack([ENCODER.vector(text) for text in texts])
    np.testing.assert_allclose([d.embedding for d in made.data], expected, atol=2e-3)
    assert made.usage.prompt_tokens == 8 + 2 + 5

    documents = ["zebra", "the cat sat", "a mat"]
    reply = httpx.post(
        f"{parley.url}/v1/rerank",
        json={"query": "what is a cat", "documents": documents},
        timeout=60,
    ).json()
    scores = {r["index"]: r["relevance_score"] for r in reply["results"]}
    expected_scores = [RANKER.score("what is a cat", document) for document in documents]
    assert [scores[i] for i in range(3)] == pytest.approx(expected_scores, abs=2e-3)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert parley.chat("Hello").status_code == 200


def test_an_engine_that_dies_is_replaced_and_its_requests_are_answered_all_the_same(
    parley: Parley,
) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(embed, parley, LONG)
        wait_until_reading(parley)
        os.kill(engine_of(parley, "embed"), signal.SIGKILL)
        assert parley.chat("Hello").status_code == 200
        reply = waiting.result()
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["data"]) == len(LONG)


def test_a_service_that_stops_finishes_what_it_reads(parley: Parley) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(embed, parley, LONG)
        wait_until_reading(parley)
        assert parley.stop() == 0
        reply = waiting.result()
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["data"]) == len(LONG)


def wait_until_reading(parley: Parley) -> None:
    """Returns when the embedding engine has read the first inputs."""
    counter = 'parley_inputs_total{model="encoder"}'
    until(lambda: parley.get("/metrics").text, lambda metrics: counter in metrics)
