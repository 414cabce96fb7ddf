"""Clients that are slow or boundless, on the service's own port, with nobody in front."""

from __future__ import annotations

import json

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.app import SILENCE_SECONDS
from service.api.connection import HEAD_SECONDS, MAX_HEAD_BYTES, MAX_HEADERS, Connection
from service.api.dialects import native
from service.api.errors import ErrorReplies, install_error_replies
from service.api.middleware import BodyDeadline
from service.gunicorn_conf import ParleyWorker
from tests.api.programs.slow import drops, exchange
from tests.api.running import listening

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Hasty(Connection):
    head_seconds = 0.2


def echo(silence_seconds: float, most_seconds: float) -> ASGIApp:
    """Says how long a body is, where it arrives in time; `GET` drips."""
    app = FastAPI()
    install_error_replies(app, ErrorReplies([("", native.to_error)]))

    @app.post("/")
    async def length(request: Request) -> JSONResponse:
        return JSONResponse({"length": len(await request.body())})

    @app.get("/")
    async def drip() -> StreamingResponse:
        return StreamingResponse(drops())

    deadline = BodyDeadline(app, silence_seconds, most_seconds)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["request_id"] = "r"
        await deadline(scope, receive, send)

    return with_state


def test_the_workers_speak_through_connections_that_have_ends() -> None:
    assert ParleyWorker.CONFIG_KWARGS["http"] == "service.api.connection:Connection"
    assert (HEAD_SECONDS, SILENCE_SECONDS) == (15, 15)


async def test_a_head_that_trickles_in_is_cut(address: str) -> None:
    async with listening(echo(1, 1), Hasty) as url:
        status, _ = await exchange(url, b"G", b"ET /", pause=0.01)
        assert status == 408
        status, said = await exchange(url, b"")  # nor is a connection kept for nothing
        assert (status, said) == (0, b"")


async def test_an_answer_that_takes_longer_is_not() -> None:
    async with listening(echo(1, 1), Hasty) as url:
        get = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
        status, said = await exchange(url, get + b"\r\n" + get + b"Connection: close\r\n\r\n")
        assert (status, said.count(b"drop ")) == (200, 8)
        status, said = await exchange(url, get + b"\r\nG")  # the next head waits for its turn
        assert (status, said.count(b"drop ")) == (200, 4)


@pytest.mark.parametrize(
    "head",
    [
        [b"GET /", b"a" * (MAX_HEAD_BYTES + 1), b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [b"GET /" + b"a" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ",
            b"a" * (MAX_HEAD_BYTES + 1),
            b"\r\n\r\n",
        ],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", *[b"a" * 9000] * 100],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n" * (MAX_HEADERS + 1), b"\r\n"],
        [b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * MAX_HEADERS * 50 + b"\r\n"],
    ],
    ids=["address", "address at once", "header", "endless header", "many headers", "very many"],
)
async def test_a_head_that_is_too_large_is_refused(address: str, head: list[bytes]) -> None:
    status, said = await exchange(address, *head)
    assert status in (431, 0)  # 0: it was closed while the client still wrote
    if status:
        assert b"100 lines and 65536 bytes" in said


async def test_a_large_head_is_no_trouble(address: str) -> None:
    cookie = b"X-Long: " + b"a" * 30_000 + b"\r\nConnection: close\r\n\r\n"
    status, _ = await exchange(address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + cookie)
    assert status == 200


async def test_a_body_that_falls_silent_is_refused() -> None:
    async with listening(echo(silence_seconds=0.2, most_seconds=30)) as url:
        status, said = await exchange(url, HEAD + b"Content-Length: 10\r\n\r\n", b"abc")
        assert status == 408
        assert json.loads(said.partition(b"\r\n\r\n")[2]) == {
            "detail": "The body did not arrive in time."
        }
        assert b"connection: close" in said.lower()


async def test_so_is_one_that_never_falls_silent_and_never_ends() -> None:
    async with listening(echo(silence_seconds=10, most_seconds=0.3)) as url:
        drip = [b"a"] * 20
        status, _ = await exchange(url, HEAD + b"Content-Length: 1000\r\n\r\n", *drip, pause=0.05)
        assert status in (408, 0)


async def test_one_that_takes_its_time_within_bounds_is_read() -> None:
    async with listening(echo(silence_seconds=5, most_seconds=10)) as url:
        head = HEAD + b"Connection: close\r\nContent-Length: 6\r\n\r\n"
        status, said = await exchange(url, head, *[b"a"] * 6, pause=0.02)
        assert (status, said[-12:]) == (200, b'{"length":6}')
