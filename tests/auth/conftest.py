"""Access tokens on a real file, under a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.auth.tokens import AccessTokens
from service.settings import Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import Database, open_database
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_800_000_000.0)


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(Settings(state_dir=tmp_path))
    yield opened
    await opened.aclose()


@pytest.fixture
def tokens(database: Database, clock: FakeClock) -> AccessTokens:
    return AccessTokens(SqlAccessTokens(database), clock)
