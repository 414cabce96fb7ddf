"""Alive, ready, healthy, measured."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from service.ipc.status import DownloadStatus, Phase
from tests.fakes.engine import FakeEngine, loading, serving

READINESS = pytest.mark.parametrize("path", ["/health", "/v1/health", "/api/v1/health", "/readyz"])


@READINESS
async def test_healthy_once_the_model_answers(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)
    assert (reply.status_code, reply.json()) == (
        200,
        {"status": "healthy", "model_loaded": True, "model": "fake"},
    )
    assert (await client.head(path)).status_code == 200


@READINESS
async def test_loading_says_how_far(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.status = replace(loading(0.43), retry_after_seconds=2.5)
    reply = await client.get(path)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")
    assert reply.json() == {
        "status": "loading",
        "model_loaded": False,
        "progress": 0.43,
        "retry_after_s": 3,
        "wanted_model": "fake",
    }


async def test_a_download_is_progress_too(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.status = replace(
        loading(0), engines=(), download=DownloadStatus("fake", 250_000, 1_000_000)
    )
    body = (await client.get("/health")).json()
    assert body["progress"] == 0.25
    assert body["download"] == {"model": "fake", "bytes_done": 250_000, "bytes_total": 1_000_000}


async def test_a_stand_in_says_that_it_is_one(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.status = replace(serving(), wanted_model="large", notice="The hub can't be reached.")
    body = (await client.get("/health")).json()
    assert body["status"] == "healthy"
    assert (body["model"], body["wanted_model"]) == ("fake", "large")
    assert body["notice"] == "The hub can't be reached."


async def test_draining_refuses_at_once_and_says_so(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.status = replace(serving(), phase=Phase.DRAINING)
    reply = await client.get("/readyz")
    assert (reply.status_code, reply.json()["status"]) == (503, "draining")
    refused = await client.post("/chat", json={"message": "a"})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_dead_engine_is_unhealthy_until_it_is_back(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.dies()
    reply = await client.get("/health")
    assert (reply.status_code, reply.json()["status"]) == (503, "unhealthy")
    refused = await client.post("/chat", json={"message": "a"})
    assert (refused.status_code, refused.json()["detail"]) == (503, "Model not loaded")
    assert (await client.get("/livez")).json() == {"status": "alive"}
    engine.revives()
    assert (await client.get("/health")).status_code == 200


async def test_metrics_are_there_while_the_engine_is_not(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    up = (await client.get("/metrics")).text
    engine.dies()
    reply = await client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "parley_engine_up 1.0" in up
    assert "parley_engine_up 0.0" in reply.text
    assert "parley_engine_restarts_total 1.0" in reply.text
