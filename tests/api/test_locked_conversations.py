"""A conversation waits for one response at a time, in all workers, and for none that has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.chat.archive import Archive
from service.chat.items import Items
from service.domain.access import ANONYMOUS
from service.domain.errors import QueueFull
from service.settings import Settings
from service.store.archive import SqlArchive
from service.store.database import Database, settle_answers, store_url
from service.store.items import HELD_SECONDS, SqlItems
from tests.api.running import connected_client, running_app
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine

PATH = "/v1/responses"
ALL_WAYS: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"background": True},
    {"background": True, "stream": True},
]
each_way = pytest.mark.parametrize("way", ALL_WAYS, ids=["whole", "stream", "background", "both"])


@pytest_asyncio.fixture
async def other(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another worker on the same store."""
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        yield client


@pytest_asyncio.fixture
async def made(client: httpx.AsyncClient) -> str:
    return str((await client.post("/v1/conversations", json={})).json()["id"])


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """The file of the application."""
    opened = Database(store_url(Settings(state_dir=tmp_path)))
    opened.open()
    yield opened
    await opened.aclose()


async def ask(client: httpx.AsyncClient, made: str, **body: Any) -> httpx.Response:
    return await client.post(PATH, json={"input": "Hi", "conversation": made, **body})


def is_locked(reply: httpx.Response) -> bool:
    """Or else answered."""
    if reply.status_code == 200:
        return False
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "conversation_locked"), reply.text
    assert error["param"] == "conversation"
    return True


async def answered(client: httpx.AsyncClient, made: str) -> None:
    """As soon as the conversation waits for nothing."""
    async with asyncio.timeout(60):
        while is_locked(await ask(client, made)):
            pass


async def texts_of(client: httpx.AsyncClient, made: str) -> list[str]:
    path = f"/v1/conversations/{made}/items"
    items = (await client.get(path, params={"order": "asc"})).json()["data"]
    return [item["content"][0]["text"] for item in items]


@each_way
async def test_of_two_at_once_the_second_is_refused_on_any_worker_and_then_sees_the_first(
    client: httpx.AsyncClient,
    other: httpx.AsyncClient,
    engine: FakeEngine,
    made: str,
    way: dict[str, Any],
) -> None:
    engine.paced = True
    asking = asyncio.create_task(ask(client, made, **way))
    await engine.until(lambda: engine.jobs)
    for worker in (client, other):
        for another in ALL_WAYS:
            assert is_locked(await ask(worker, made, **another))
    elsewhere = str((await client.post("/v1/conversations", json={})).json()["id"])
    beside = asyncio.create_task(ask(other, elsewhere))
    await engine.until(lambda: len(engine.jobs) == 2)
    await engine.write(9)
    assert (await asking).status_code == (await beside).status_code == 200
    engine.paced = False
    await answered(other, made)
    assert await texts_of(client, made) == ["Hi", engine.default_answer] * 2


async def test_whoever_hears_the_end_may_go_on_at_once(
    client: httpx.AsyncClient, other: httpx.AsyncClient, made: str
) -> None:
    ways = [*ALL_WAYS, {"store": False}, {"store": False, "stream": True}]
    for number, way in enumerate(ways):
        begun = await ask(client, made, input=f"{number}", **way)
        assert begun.status_code == 200, begun.text
        if way == {"background": True}:
            name = begun.json()["id"]
            async with asyncio.timeout(60):
                while (await other.get(f"{PATH}/{name}")).json()["status"] != "completed":
                    pass
    said = (await texts_of(client, made))[::2]
    assert said == [f"{number}" for number in range(len(ALL_WAYS))]


@each_way
async def test_an_answer_that_fails_holds_nobody_up(
    client: httpx.AsyncClient, engine: FakeEngine, made: str, way: dict[str, Any]
) -> None:
    engine.paced = True
    asking = asyncio.create_task(ask(client, made, **way))
    await engine.until(lambda: engine.jobs)
    engine.dies()
    await asking
    engine.revives()
    engine.paced = False
    await answered(client, made)


@each_way
async def test_a_request_that_is_refused_holds_nobody_up(
    client: httpx.AsyncClient, engine: FakeEngine, made: str, way: dict[str, Any]
) -> None:
    engine.refuses(QueueFull("The queue is full."))
    assert (await ask(client, made, **way)).status_code == 503
    assert (await ask(client, made, temperature=9, **way)).status_code == 400
    assert not is_locked(await ask(client, made))


@pytest.mark.parametrize("end", ["cancel", "forget"])
async def test_an_answer_that_another_worker_ends_holds_nobody_up(
    client: httpx.AsyncClient, other: httpx.AsyncClient, engine: FakeEngine, made: str, end: str
) -> None:
    engine.paced = True
    name = (await ask(client, made, background=True)).json()["id"]
    if end == "cancel":
        await other.post(f"{PATH}/{name}/cancel")
    else:
        await other.delete(f"{PATH}/{name}")
    engine.paced = False
    assert not is_locked(await ask(other, made))
    assert await texts_of(client, made) == ["Hi", engine.default_answer]


@pytest.mark.parametrize("way", ALL_WAYS[:2], ids=["whole", "stream"])
async def test_a_client_that_goes_away_holds_nobody_up(
    client: httpx.AsyncClient, address: str, engine: FakeEngine, made: str, way: dict[str, Any]
) -> None:
    engine.paced = True
    async with httpx.AsyncClient(base_url=address, timeout=60) as leaving:
        asking = asyncio.create_task(ask(leaving, made, **way))
        await engine.until(lambda: engine.jobs)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(60):
        await engine.until(lambda: engine.cancelled)
    engine.paced = False
    await answered(client, made)
    assert await texts_of(client, made) == ["Hi", engine.default_answer]


async def test_a_worker_that_ends_holds_nobody_up(
    client: httpx.AsyncClient, engine: FakeEngine, tmp_path: Path, made: str
) -> None:
    engine.paced = True
    async with running_app(engine, tmp_path) as app, connected_client(app) as ending:
        assert not is_locked(await ask(ending, made, background=True))
        assert is_locked(await ask(client, made))
    engine.paced = False
    assert not is_locked(await ask(client, made))


async def test_a_worker_that_was_killed_holds_up_for_some_seconds_and_not_over_a_restart(
    client: httpx.AsyncClient, database: Database, tmp_path: Path, made: str
) -> None:
    killed = SqlItems(database, lambda: time.time() - HELD_SECONDS - 1)
    assert await killed.hold(ANONYMOUS.id, made, "resp_1")
    assert not is_locked(await ask(client, made))
    assert await SqlItems(database).hold(ANONYMOUS.id, made, "resp_2")
    assert is_locked(await ask(client, made))
    settle_answers(Settings(state_dir=tmp_path))
    assert not is_locked(await ask(client, made))


async def test_who_is_alive_holds_on_and_who_was_let_go_does_not(database: Database) -> None:
    clock = FakeClock()
    items, archive = SqlItems(database, clock), SqlArchive(database, clock)
    await archive.create("me", "c", "")
    assert await items.hold("me", "none", "a") is None
    assert await items.hold("me", "c", "a")
    for _ in range(3):
        clock.now += HELD_SECONDS - 1
        await items.hold_on("me", "a")
        assert await items.hold("me", "c", "b") is False
    await items.let_go("you", "a")
    assert await items.hold("me", "c", "b") is False
    await items.let_go("me", "a")
    await items.hold_on("me", "a")
    assert await items.hold("me", "c", "b")


async def test_a_long_answer_says_that_it_is_still_being_written(database: Database) -> None:
    clock = FakeClock()
    archive = SqlArchive(database, clock)
    await archive.create(ANONYMOUS.id, "c", "")
    said = asyncio.Event()

    class Listening(SqlItems):
        async def hold_on(self, principal_id: str, answer_id: str) -> None:
            await super().hold_on(principal_id, answer_id)
            said.set()

    store = Listening(database, clock)
    async with Items(Archive(archive), store, hold_on_seconds=0).held(ANONYMOUS, "c", "a"):
        clock.now += HELD_SECONDS
        for _ in range(2):  # the first one may have begun before
            said.clear()
            await said.wait()
        clock.now += 1
        assert await store.hold(ANONYMOUS.id, "c", "b") is False
    assert await store.hold(ANONYMOUS.id, "c", "b")
