"""Streams: their first and last bytes, keep-alive, and what a client that leaves sets free."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI

from service.api.dialects.native.frames import JsonFrames
from service.api.streaming import EventStream
from service.domain.errors import QueueFull
from service.domain.events import Event, TextDelta
from service.ipc.messages import Submit
from service.settings import ApiSettings
from tests.api.running import listening, running_app
from tests.fakes.engine import FakeEngine, FakeStream

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {**HELLO, "stream": True}),
    ("/chat/stream", {"user_input": "Hello"}),
    ("/chat/stream", {"message": "Hello"}),
]
REPLIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", HELLO),
    ("/chat", {"user_input": "Hello"}),
    ("/chat", {"message": "Hello"}),
]
streams = pytest.mark.parametrize(("path", "body"), STREAMS)


async def frames_of(reply: httpx.Response) -> AsyncIterator[str]:
    held = ""
    async for text in reply.aiter_text():
        *complete, held = (held + text).split("\n\n")
        for frame in complete:
            yield frame
    assert held == ""


@streams
async def test_headers_and_a_comment_leave_before_the_first_token(
    address: str, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.paced = True
    async with (
        httpx.AsyncClient(base_url=address, timeout=60) as client,
        client.stream("POST", path, json=body) as reply,
    ):
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["cache-control"] == "no-cache"
        assert await anext(frames_of(reply)) == ": ok"
        assert engine.running


@streams
async def test_each_token_leaves_when_it_is_written(
    address: str, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.paced = True
    async with (
        httpx.AsyncClient(base_url=address, timeout=60) as client,
        client.stream("POST", path, json=body) as reply,
    ):
        frames = frames_of(reply)
        for word in ("Hello", "there,", "friend."):
            await engine.write(1)
            while word not in await anext(frames):
                pass
        rest = [frame async for frame in frames]
    assert rest


@streams
async def test_a_client_that_leaves_cancels_at_once(
    address: str, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.paced = True
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        async with client.stream("POST", path, json=body) as reply:
            await engine.write(1)
            await anext(frames_of(reply))
        async with asyncio.timeout(60):
            await engine.until(lambda: engine.cancelled)
    assert engine.running == []


@pytest.mark.parametrize(("path", "body"), REPLIES)
async def test_a_client_that_does_not_wait_for_its_reply_cancels_too(
    address: str, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.paced = True
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        asking = asyncio.create_task(client.post(path, json=body))
        await engine.until(lambda: engine.running)
        asking.cancel()
        async with asyncio.timeout(60):
            await engine.until(lambda: engine.cancelled)
    assert engine.running == []


@streams
async def test_silence_is_filled_with_comments(
    engine: FakeEngine, tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    engine.paced = True
    api = ApiSettings(keepalive_comment_seconds=0.05)
    async with (
        running_app(engine, tmp_path, api) as app,
        listening(app) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        client.stream("POST", path, json=body) as reply,
    ):
        seen = []
        async for frame in frames_of(reply):
            seen.append(frame)
            if seen.count(": ping") == 2:
                await engine.write(3)
    assert seen[-1] != ": ping"
    assert any("friend." in frame for frame in seen)


@streams
async def test_what_can_be_refused_is_refused_before_the_first_byte(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    engine.refuses(QueueFull("64 requests are waiting already.", retry_after_seconds=2.1))
    reply = await client.post(path, json=body)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-should-retry"] == "true"


async def ending(address: str, path: str, body: dict[str, Any], cause: Any) -> list[str]:
    """The frames of a stream that `cause` ends, without comments."""
    async with (
        httpx.AsyncClient(base_url=address, timeout=60) as client,
        client.stream("POST", path, json=body) as reply,
    ):
        frames = frames_of(reply)
        seen = [await anext(frames)]
        await cause()
        seen += [frame async for frame in frames]
    return [frame for frame in seen if not frame.startswith(":")]


async def test_a_dead_engine_is_an_error_frame_in_each_dialect(
    address: str, engine: FakeEngine
) -> None:
    engine.paced = True

    async def dies() -> None:
        await engine.write(1)
        engine.dies()

    lasts = []
    for path, body in STREAMS:
        lasts.append((await ending(address, path, body, dies))[-2:])
        engine.revives()
    openai, text, objects = lasts
    error = json.loads(openai[-1].removeprefix("data: "))["error"]
    assert (error["type"], set(error)) == (
        "service_unavailable",
        {"message", "type", "param", "code"},
    )
    assert text[0].startswith("data: \n[The engine")
    assert text[1] == "data: [END]"
    last = json.loads(objects[-1].removeprefix("data: "))
    assert last["done"] is True
    assert "The engine stopped" in last["error"]


async def test_a_shutdown_ends_each_stream_well_formed(address: str, engine: FakeEngine) -> None:
    engine.paced = True

    async def shuts_down() -> None:
        await engine.write(1)
        engine.shuts_down()

    lasts = []
    for path, body in STREAMS:
        lasts.append((await ending(address, path, body, shuts_down))[-2:])
        engine.revives()
    openai, text, objects = lasts
    assert json.loads(openai[0].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert openai[1] == "data: [DONE]"
    assert text[1] == "data: [END]"
    assert json.loads(objects[-1].removeprefix("data: "))["finish_reason"] == "shutdown"


async def test_tokens_that_wait_together_leave_in_one_write(
    app: FastAPI, engine: FakeEngine
) -> None:
    bodies: list[bytes] = []
    sent = [{"type": "http.request", "body": json.dumps({"user_input": "x"}).encode()}]

    async def receive() -> dict[str, Any]:
        return sent.pop() if sent else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/chat/stream",
        "raw_path": b"/chat/stream",
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    assert b"data: Hello\n\ndata:  there,\n\ndata:  friend.\n\n" in bodies[1]


class _SlowToAccept(FakeEngine):
    """An engine whose queue is long: it accepts nothing, but notices who gives up waiting."""

    given_up = False

    async def submit(self, job: Submit) -> FakeStream:
        self.jobs.append(job)
        await self.changed()
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            self.given_up = True
            await self.changed()
            raise


@pytest.mark.parametrize(("path", "body"), STREAMS + REPLIES)
async def test_a_client_that_leaves_before_it_was_accepted_cancels_too(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    engine = _SlowToAccept()
    async with (
        running_app(engine, tmp_path) as app,
        listening(app) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asking = asyncio.create_task(client.post(path, json=body))
        await engine.until(lambda: engine.jobs)
        asking.cancel()
        async with asyncio.timeout(60):
            await engine.until(lambda: engine.given_up)


class _Broken:
    """A generation with a bug in it."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        yield TextDelta("Half an")
        raise ZeroDivisionError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True


async def test_a_bug_after_the_first_byte_is_logged_and_an_event_too(
    logged: list[dict[str, Any]],
) -> None:
    source = _Broken()
    stream = EventStream(source, JsonFrames("s"), keepalive_seconds=10)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await stream({"type": "http", "state": {"request_id": "r1"}}, receive, send)
    last = sent[-1]["body"].split(b"data: ")[-1]
    assert json.loads(last) == {
        "error": "Internal error. Request id: r1.",
        "done": True,
        "session_id": "s",
    }
    assert sent[-1]["more_body"] is False
    assert source.closed
    assert [(e["event"], e["exc_info"]) for e in logged] == [("stream_failed", True)]
