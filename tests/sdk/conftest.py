"""The vendor's published schema, for replies that claim to follow it, and its client on the one
service that all tests share, or on a fake engine of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from tests.api.running import listening, running_app
from tests.e2e.parley import Parley
from tests.fakes.engine import FakeEngine
from tests.sdk.published import published

__all__ = ["published"]


@pytest.fixture
def client(parley: Parley) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest_asyncio.fixture
async def url(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[str]:
    """Where the application listens, in this process; each module has its own `engine`."""
    async with running_app(engine, tmp_path) as app, listening(app) as url:
        yield url


@pytest_asyncio.fixture
async def async_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made
