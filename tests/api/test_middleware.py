"""What surrounds every request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.api.running import connected_client
from tests.fakes.engine import FakeEngine

CANARY = "zebra-canary"


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("offered", ["abc-1.2_Z", "a" * 128])
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, offered: str) -> None:
    reply = await client.get("/livez", headers={"X-Request-Id": offered})
    assert reply.headers["x-request-id"] == offered


@pytest.mark.parametrize("offered", ["a b", "a" * 129, "a\u00e9", "{}", ""])
async def test_another_one_is_replaced(client: httpx.AsyncClient, offered: str) -> None:
    reply = await client.get("/livez", headers={b"X-Request-Id": offered.encode()})
    assert reply.headers["x-request-id"].isalnum()
    assert len(reply.headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/nowhere"])
async def test_openais_clients_are_told_how_long_it_took(
    client: httpx.AsyncClient, path: str
) -> None:
    headers = (await client.get(path)).headers
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["openai-version"] == "2020-10-01"
    assert headers["request-id"] == headers["x-request-id"]


async def test_the_request_id_reaches_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await client.post("/chat", json={"message": "a"}, headers={"X-Request-Id": "mine"})
    assert engine.jobs[0].request_id == "mine"


async def test_one_line_per_request_and_never_its_contents(
    client: httpx.AsyncClient, engine: FakeEngine, logged: list[dict[str, Any]]
) -> None:
    engine.answers(f"{CANARY} back")
    await client.post(f"/chat?{CANARY}", json={"message": CANARY}, headers={"X-Request-Id": "r1"})
    finished = [entry for entry in logged if entry["event"] == "request_finished"]
    assert len(finished) == 1
    facts = {k: finished[0][k] for k in ("method", "route", "status", "request_id", "complete")}
    assert facts == {
        "method": "POST",
        "route": "/chat",
        "status": 200,
        "request_id": "r1",
        "complete": True,
    }
    assert finished[0]["num_bytes"] > 50
    assert finished[0]["seconds"] >= 0
    assert CANARY not in repr(logged)


async def test_requests_are_counted_by_route_template(client: httpx.AsyncClient) -> None:
    route = "/v1/models/{model_id:path}"
    labels = {"route": route, "method": "GET", "status": "404"}
    before = sample("parley_http_requests_total", **labels)
    timed = sample("parley_http_request_seconds_count", route=route)
    await client.get("/v1/models/a/b")
    await client.get("/v1/models/c")
    assert sample("parley_http_requests_total", **labels) == before + 2
    assert sample("parley_http_request_seconds_count", route=route) == timed + 2


async def test_scans_share_one_label(client: httpx.AsyncClient) -> None:
    labels = {"route": "unmatched", "method": "OTHER", "status": "404"}
    before = sample("parley_http_requests_total", **labels)
    await client.request("PURGE", "/wp-admin")
    await client.request("BREW", "/coffee")
    assert sample("parley_http_requests_total", **labels) == before + 2


@pytest.mark.parametrize(
    ("dialect", "path", "body", "status"),
    [
        ("openai", "/v1/chat/completions", {"messages": []}, "400"),
        ("openai", "/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}, "200"),
        ("native", "/chat", {"message": "a"}, "200"),
        ("native", "/chat/stream", {"user_input": "a"}, "200"),
        ("native", "/chat", {}, "422"),
    ],
)
async def test_chat_requests_are_counted_by_dialect(
    client: httpx.AsyncClient, dialect: str, path: str, body: Any, status: str
) -> None:
    before = sample("parley_requests_total", dialect=dialect, status=status)
    await client.post(path, json=body)
    assert sample("parley_requests_total", dialect=dialect, status=status) == before + 1


async def test_a_bug_is_logged_once_and_told_as_nothing_but_a_bug(
    app: FastAPI, logged: list[dict[str, Any]]
) -> None:
    async def broken() -> None:
        raise RuntimeError(f"secret {CANARY}")

    for path in ("/broken", "/v1/broken"):
        app.add_api_route(path, broken)
    async with connected_client(app) as client:
        native = await client.get("/broken", headers={"X-Request-Id": "r1"})
        openai = await client.get("/v1/broken", headers={"X-Request-Id": "r2"})
    sentence = "Internal error. Request id: {}."
    assert (native.status_code, native.json()) == (500, {"detail": sentence.format("r1")})
    assert native.headers["x-should-retry"] == "false"
    assert openai.json()["error"] == {
        "message": sentence.format("r2"),
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
    failures = [e for e in logged if e["event"] == "request_failed"]
    assert [(e["route"], e["request_id"], e["exc_info"]) for e in failures] == [
        ("/broken", "r1", True),
        ("/v1/broken", "r2", True),
    ]


async def test_a_bug_in_a_reply_that_has_begun_is_logged_and_cuts_it(
    app: FastAPI, logged: list[dict[str, Any]]
) -> None:
    class Broken(Response):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ZeroDivisionError

    async def broken() -> Broken:
        return Broken()

    app.add_api_route("/broken", broken)
    async with connected_client(app) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/broken")
    failures = [e for e in logged if e["event"] == "request_failed"]
    assert [(e["route"], e["exc_info"]) for e in failures] == [("/broken", True)]


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nothing", "/docs"])
async def test_browsers_are_kept_strict(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path, headers={"Accept": "text/html"})).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


async def test_a_chunked_body_without_end_is_refused_as_it_arrives(address: str) -> None:
    """The server answers while the client still sends, and takes enough for it to hear that."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    for _ in range(6):
        writer.write(chunk)
        await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    writer.write(b"0\r\n\r\n")
    body = await reader.read()
    assert json.loads(body) == {"detail": "The body exceeds the 4194304 bytes that are accepted."}
    writer.close()


async def test_a_body_that_is_announced_too_large_is_refused_unread(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: 10000000\r\n\r\n"
    )
    async with asyncio.timeout(60):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_files_of_the_page_are_served_and_nothing_beside_them(
    client: httpx.AsyncClient,
) -> None:
    static = Path(__file__).parents[2] / "service/web/static"
    for file in (path for path in static.rglob("*") if path.is_file()):
        reply = await client.get(f"/static/{file.relative_to(static)}")
        assert (reply.status_code, reply.headers["cache-control"]) == (200, "no-cache")
    assert (await client.get("/static/../__init__.py")).status_code == 404
    assert (await client.get("/static/%2e%2e/__init__.py")).status_code == 404
