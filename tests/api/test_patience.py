"""A model that has left memory: who asks waits for it, and is told how far it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.domain.errors import QueueFull
from service.settings import ApiSettings
from tests.api.running import listening, running_app
from tests.fakes.engine import FakeEngine

STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/chat/stream", {"message": "Hi"}),
    ("/chat/stream", {"user_input": "Hi"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}),
    (
        "/v1/messages",
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "stream": True},
    ),
    ("/v1/responses", {"input": "Hi", "stream": True}),
]


@pytest_asyncio.fixture
async def address(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[str]:
    api = ApiSettings(keepalive_comment_seconds=0.1)
    async with running_app(engine, tmp_path, api=api) as app, listening(app) as url:
        yield url


@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_a_stream_opens_at_once_and_comments_until_the_model_is_back(
    address: str, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.sleeps()
    async with (
        httpx.AsyncClient(base_url=address, timeout=60) as client,
        client.stream("POST", path, json={"model": "fake", **body}) as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = reply.aiter_lines()
        assert await anext(lines) == ": loading fake 0%"
        engine.wakes()
        text = "\n".join([line async for line in lines])
    assert "friend" in text


@pytest.mark.parametrize(("path", "body"), STREAMS)
async def test_a_refusal_that_comes_later_ends_the_stream_in_its_own_words(
    address: str, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.sleeps()
    engine.refuses(QueueFull("All slots are taken."))
    engine.refuses(QueueFull("All slots are taken."))
    async with (
        httpx.AsyncClient(base_url=address, timeout=60) as client,
        client.stream("POST", path, json={"model": "fake", **body}) as reply,
    ):
        lines = reply.aiter_lines()
        await anext(lines)
        engine.wakes()
        data = [line[6:] async for line in lines if line.startswith("data: ")]
    if "user_input" in body:
        assert data[-1] == "[END]"
    else:
        assert "error" in json.loads(data[-1])
        assert "All slots are taken" in data[-1] or path == "/chat/stream"


async def test_who_asks_for_no_stream_just_waits(address: str, engine: FakeEngine) -> None:
    engine.sleeps()
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        asking = asyncio.create_task(client.post("/chat", json={"message": "Hi"}))
        done, _ = await asyncio.wait({asking}, timeout=0.4)
        assert not done
        engine.wakes()
        reply = await asking
    assert (reply.status_code, reply.json()["response"]) == (200, "Hello there, friend.")


async def test_it_is_healthy_asleep_and_says_so(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.sleeps()
    reply = await client.get("/health")
    assert reply.status_code == 200
    facts = {"status": "healthy", "model_loaded": True, "model": "fake", "asleep": True}
    assert reply.json() == facts
    metrics = (await client.get("/metrics")).text
    assert "parley_engine_up 1.0" in metrics
    assert "parley_engine_asleep 1.0" in metrics
