"""The real application around a fake engine: in this process, or behind a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.api.app import create_app
from service.api.connection import Connection
from service.settings import ApiSettings, AuthSettings, EmbedSettings, RerankSettings, Settings
from tests.fakes.engine import FakeEngine


@asynccontextmanager
async def running_app(
    engine: FakeEngine,
    state_dir: Path,
    api: ApiSettings | None = None,
    auth: AuthSettings | None = None,
    embed: EmbedSettings | None = None,
    rerank: RerankSettings | None = None,
) -> AsyncIterator[FastAPI]:
    """The application with its lifespan, keeping conversations in `state_dir`.

    It may embed and rerank, where `engine` has companions that do.
    """
    settings = Settings(
        state_dir=state_dir,
        api=api or ApiSettings(),
        auth=auth or AuthSettings(),
        embed=embed or EmbedSettings(model="fake-embedder"),
        rerank=rerank or RerankSettings(model="fake-reranker"),
    )
    app = create_app(settings, engines=engine)
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def connected_client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls `app` without a socket."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://parley.localhost") as client:
        yield client


class _Server(uvicorn.Server):
    """A server that leaves the test's signals alone, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app: ASGIApp, connection: type[Connection] = Connection) -> AsyncIterator[str]:
    """`app` on a real port, in this event loop; yields its URL. Its lifespan must be running."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, http=connection, lifespan="off", log_config=None, timeout_graceful_shutdown=2
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        host, port = listener.getsockname()
        await server.listens.wait()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            await serving
