"""The database that the settings name, for one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.settings import Settings, load_settings
from service.store.database import Database, open_database

T = TypeVar("T")


def with_database(work: Callable[[Database], Awaitable[T]], settings: Settings | None = None) -> T:
    """The result of `work`, with the database opened before and closed after it: the one that
    `settings` name, or else the environment.

    Raises `ConfigurationError`, and what `work` raises.
    """

    async def run() -> T:
        database = await open_database(settings or load_settings())
        try:
            return await work(database)
        finally:
            await database.aclose()

    return asyncio.run(run())
