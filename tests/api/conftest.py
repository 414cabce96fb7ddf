"""The application in this process, with a fake engine under the test's control."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI
from structlog.testing import LogCapture

from tests.api.running import connected_client, listening, running_app
from tests.fakes.engine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest_asyncio.fixture
async def app(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with running_app(engine, tmp_path) as app:
        yield app


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected_client(app) as client:
        yield client


@pytest_asyncio.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    """Where the application listens, on a real socket."""
    async with listening(app) as url:
        yield url


@pytest.fixture
def logged() -> Any:
    """Every event that is logged, with its facts."""
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**before)
