"""Responses that are kept while they grow, on a real file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.conversation import KeptResponse, ResponseState
from service.settings import Settings, StoreSettings
from service.store.database import Database, store_url
from service.store.responses import LOST_SECONDS, SqlResponses
from tests.fakes.clock import FakeClock

WRITING, ENDED = ResponseState.WRITING, ResponseState.ENDED


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'parley.sqlite'}"
    opened = Database(store_url(Settings(store=StoreSettings(url=url))))
    opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database: Database, clock: FakeClock) -> SqlResponses:
    return SqlResponses(database, clock)


def response(reply: str = "", state: ResponseState = WRITING) -> KeptResponse:
    return KeptResponse("resp_1", None, "[]", reply, state)


async def state_of(store: SqlResponses) -> ResponseState:
    (kept,) = await store.chain("me", "resp_1", 10)
    return kept.state


async def test_events_come_from_any_number_on_whatever_batches_they_came_in(
    store: SqlResponses,
) -> None:
    events = [f"event {number}" for number in range(10)]
    await store.keep("me", response(), events[:2])
    assert await store.grow("me", response("a"), 2, events[2:3])
    assert await store.grow("me", response("ab"), 3, [])
    assert await store.grow("me", response("abc", ENDED), 3, events[3:])
    for number in range(12):
        found = await store.growth("me", "resp_1", number)
        assert found is not None
        assert found == (response("abc", ENDED), events[number:])
    assert await store.growth("you", "resp_1", 0) is None


async def test_an_ended_response_grows_no_more(store: SqlResponses) -> None:
    await store.keep("me", response("whole", ENDED))
    assert not await store.grow("me", response("more"), 0, ["late"])
    assert await store.growth("me", "resp_1", 0) == (response("whole", ENDED), [])


async def test_a_cancelled_response_stays_as_it_was(store: SqlResponses) -> None:
    await store.keep("me", response("begun"), ["first"])
    await store.cancel("you", "resp_1")
    assert await state_of(store) is WRITING
    await store.cancel("me", "resp_1")
    assert not await store.grow("me", response("more", ENDED), 1, ["second"])
    cancelled = response("begun", ResponseState.CANCELLED)
    assert await store.growth("me", "resp_1", 0) == (cancelled, ["first"])


async def test_a_response_that_nobody_writes_to_is_lost_and_stays_so(
    store: SqlResponses, clock: FakeClock
) -> None:
    await store.keep("me", response())
    clock.now += LOST_SECONDS
    assert await store.grow("me", response("more"), 0, [])
    clock.now += LOST_SECONDS + 1
    assert await state_of(store) is ResponseState.LOST
    assert not await store.grow("me", response("too late", ENDED), 0, [])
    await store.cancel("me", "resp_1")
    assert await state_of(store) is ResponseState.LOST


async def test_events_are_forgotten_with_their_response(
    store: SqlResponses, database: Database
) -> None:
    await store.keep("me", response(), ["first"])
    assert await store.forget("me", "resp_1")
    assert not await store.grow("me", response("more"), 1, ["second"])
    assert await store.growth("me", "resp_1", 0) is None

    def count(connection: object) -> int:
        query = "SELECT count(*) FROM response_events"
        return int(connection.exec_driver_sql(query).scalar())  # type: ignore[attr-defined]

    assert await database.read(count) == 0
