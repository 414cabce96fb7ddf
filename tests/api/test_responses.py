"""Responses whose clients go away: two workers, one store, and an engine under control."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.domain.access import ANONYMOUS
from service.domain.conversation import KeptResponse, ResponseState
from service.settings import Settings
from service.store.database import open_database
from service.store.responses import LOST_SECONDS, SqlResponses
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine

PATH = "/v1/responses"


@pytest_asyncio.fixture
async def other(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another worker on the same store."""
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        yield client


async def begin(client: httpx.AsyncClient, **body: Any) -> str:
    reply = await client.post(PATH, json={"input": "Hi", "background": True, **body})
    assert reply.status_code == 200, reply.text
    assert reply.json()["status"] == "queued"
    name: str = reply.json()["id"]
    return name


async def events_of(client: httpx.AsyncClient, name: str, after: int = -1) -> list[dict[str, Any]]:
    """All events up to the end, which is awaited."""
    params: dict[str, str | int] = {"stream": "true", "starting_after": after}
    reply = await client.get(f"{PATH}/{name}", params=params)
    assert reply.status_code == 200, reply.text
    lines = [line for line in reply.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def status_of(client: httpx.AsyncClient, name: str) -> str:
    return str((await client.get(f"{PATH}/{name}")).json()["status"])


async def test_an_answer_is_written_though_nobody_waits_for_it(
    client: httpx.AsyncClient, other: httpx.AsyncClient, engine: FakeEngine
) -> None:
    name = await begin(client)
    events = await events_of(client, name)
    assert [event["type"] for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    whole = (await other.get(f"{PATH}/{name}")).json()
    assert events[-1] == {
        "type": "response.completed",
        "response": whole,
        "sequence_number": len(events) - 1,
    }
    assert whole["output"][0]["content"][0]["text"] == engine.default_answer
    for after in range(-1, len(events) + 1):
        assert await events_of(other, name, after) == events[after + 1 :]


async def test_another_worker_tells_of_an_answer_while_it_grows(
    client: httpx.AsyncClient, other: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.paced = True
    name = await begin(client)
    following = asyncio.gather(events_of(client, name), events_of(other, name, 4))
    while engine.running:
        await engine.write(1)
    here, there = await following
    assert there == here[5:]
    assert there[-1]["type"] == "response.completed"


async def test_what_is_cancelled_anywhere_ends_everywhere(
    client: httpx.AsyncClient, other: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.paced = True
    name = await begin(client)
    following = asyncio.create_task(events_of(client, name))
    await engine.write(1)
    cancelled = (await other.post(f"{PATH}/{name}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    await engine.write(1)  # it grew, so its writer looks whether it is wanted
    async with asyncio.timeout(60):
        await engine.until(lambda: engine.cancelled)
        events = await following
    assert (events[-1]["type"], events[-1]["response"]["status"]) == (
        "response.incomplete",
        "cancelled",
    )
    again = await client.post(f"{PATH}/{name}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


async def test_what_has_ended_is_not_cancelled_any_more(client: httpx.AsyncClient) -> None:
    name = await begin(client)
    await events_of(client, name)
    assert (await client.post(f"{PATH}/{name}/cancel")).json()["status"] == "completed"


async def test_forgetting_an_answer_ends_it(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.paced = True
    name = await begin(client)
    assert (await client.delete(f"{PATH}/{name}")).json()["deleted"]
    async with asyncio.timeout(60):
        await engine.until(lambda: engine.cancelled)
    assert (await client.get(f"{PATH}/{name}")).status_code == 404


async def test_an_engine_that_dies_makes_the_answer_fail_and_say_so(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.paced = True
    name = await begin(client)
    await engine.write(1)
    engine.dies()
    *_, last = await events_of(client, name)
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {
        "code": "server_error",
        "message": "The engine stopped before the answer was complete.",
    }
    (item,) = last["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hello")


@pytest.mark.parametrize("body", [{"background": True}, {"stream": True}])
async def test_an_end_of_the_service_is_no_limit_of_tokens(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, bool]
) -> None:
    engine.paced = True
    asking = asyncio.create_task(client.post(PATH, json={"input": "Hi", **body}))
    async with asyncio.timeout(60):
        await engine.until(lambda: engine.running)
        await engine.write(1)
        engine.shuts_down()
        reply = await asking
        if "stream" in body:
            data = [line for line in reply.text.split("\n") if line.startswith("data: ")]
            last = json.loads(data[-1].removeprefix("data: "))
        else:
            *_, last = await events_of(client, reply.json()["id"])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["message"].startswith("The service stopped before")


async def test_an_answer_whose_worker_has_gone_fails_and_nobody_waits_for_it(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    database = await open_database(Settings(state_dir=tmp_path))
    long_ago = SqlResponses(database, lambda: time.time() - LOST_SECONDS - 1)
    reply = {"id": "resp_1", "status": "in_progress", "background": True, "output": []}
    kept = KeptResponse("resp_1", None, "[]", json.dumps(reply), ResponseState.WRITING)
    await long_ago.keep(ANONYMOUS.id, kept, ["event: x\ndata: {}\n\n"])
    await database.aclose()
    assert await status_of(client, "resp_1") == "failed"
    begun, last = await events_of(client, "resp_1")
    assert begun == {}
    assert (last["type"], last["sequence_number"]) == ("response.failed", 1)
    assert last["response"]["error"]["code"] == "server_error"


async def test_a_worker_that_ends_leaves_nothing_that_seems_to_be_written(
    engine: FakeEngine, tmp_path: Path, client: httpx.AsyncClient
) -> None:
    engine.paced = True
    async with running_app(engine, tmp_path) as app, connected_client(app) as leaving:
        name = await begin(leaving)
        await engine.write(1)
    assert await status_of(client, name) == "failed"
    assert engine.cancelled


async def test_only_a_response_that_has_ended_is_gone_on_from(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.paced = True
    name = await begin(client)
    body = {"input": "And?", "previous_response_id": name}
    early = await client.post(PATH, json=body)
    assert early.status_code == 400
    assert early.json()["error"]["param"] == "previous_response_id"
    assert "is still being written" in early.json()["error"]["message"]


async def test_a_conversation_gets_an_answer_from_the_background(
    client: httpx.AsyncClient,
) -> None:
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    name = await begin(client, conversation=made)
    await events_of(client, name)
    path = f"/v1/conversations/{made}/items"
    items = (await client.get(path, params={"order": "asc"})).json()["data"]
    texts = [item["content"][0]["text"] for item in items]
    assert texts == ["Hi", "Hello there, friend."]
    summary = (await client.get(f"/v1/conversations/{made}")).json()
    assert (summary["title"], summary["num_turns"]) == ("Hi", 1)
    later = await client.post("/chat", json={"message": "Again", "session_id": made})
    assert later.status_code == 200


async def test_a_conversation_that_was_forgotten_meanwhile_is_not_made_anew(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    engine.paced = True
    name = await begin(client, conversation=made)
    await client.delete(f"/v1/conversations/{made}")
    await engine.write(9)
    *_, last = await events_of(client, name)
    assert last["type"] == "response.completed"
    assert (await client.get(f"/v1/conversations/{made}")).status_code == 404
