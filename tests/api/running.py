"""The real application around a fake engine: in this process, or behind a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.api.app import create_app
from service.api.connection import Connection
from service.settings import ApiSettings, AuthSettings, EmbedSettings, RerankSettings, Settings
from tests.fakes.engine import FakeEngine
from tests.serving import served


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


def listening(
    app: ASGIApp, connection: type[Connection] = Connection
) -> AbstractAsyncContextManager[str]:
    """`app` on a real port, in this event loop; yields its URL. Its lifespan must be running."""
    return served(app, http=connection, lifespan="off", timeout_graceful_shutdown=2)
