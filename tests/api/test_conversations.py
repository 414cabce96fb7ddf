"""Conversations over HTTP: every device of one person sees the same, and nobody else does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.fakes.engine import FakeEngine


async def say(client: httpx.AsyncClient, text: str, session: str = "talk") -> None:
    reply = await client.post("/chat", json={"message": text, "session_id": session})
    assert reply.status_code == 200, reply.text


async def texts(client: httpx.AsyncClient, session: str) -> list[str]:
    path = f"/v1/conversations/{session}/items"
    items = (await client.get(path, params={"order": "asc"})).json()["data"]
    return [part["text"] for item in items for part in item["content"]]


async def test_what_was_said_in_one_dialect_is_listed_and_read_in_all(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("With flour.", "With sugar.")
    await say(client, "How is bread baked?")
    legacy = await client.post(
        "/api/v1/chat", json={"message": "And cake?", "conversation_id": "talk"}
    )
    assert legacy.json()["response"] == "With sugar."
    listed = (await client.get("/v1/conversations")).json()
    assert [(c["id"], c["title"], c["num_turns"]) for c in listed["data"]] == [
        ("talk", "How is bread baked?", 2)
    ]
    said = ["How is bread baked?", "With flour.", "And cake?", "With sugar."]
    assert await texts(client, "talk") == said
    history = (await client.get("/api/v1/chat/conversation/talk")).json()
    assert [m["content"] for m in history["messages"]] == said


async def test_items_come_in_pages(client: httpx.AsyncClient) -> None:
    for n in range(3):
        await say(client, f"message {n}")
    first = (await client.get("/v1/conversations/talk/items", params={"limit": 4})).json()
    assert (len(first["data"]), first["has_more"]) == (4, True)
    after = {"limit": 4, "after": first["last_id"]}
    second = (await client.get("/v1/conversations/talk/items", params=after)).json()
    assert (len(second["data"]), second["has_more"]) == (2, False)
    wrong = await client.get("/v1/conversations/talk/items", params={"after": "msg_x"})
    assert wrong.status_code == 400
    assert "'msg_x'" in wrong.json()["error"]["message"]


async def test_a_conversation_is_made_renamed_forked_and_deleted(
    client: httpx.AsyncClient,
) -> None:
    made = (await client.post("/v1/conversations", json={"title": "Plans"})).json()
    name = made["id"]
    await say(client, "one", name)
    await say(client, "two", name)
    renamed = await client.post(f"/v1/conversations/{name}", json={"metadata": {"title": "Trip"}})
    assert renamed.json()["title"] == "Trip"
    fork = (await client.post(f"/v1/conversations/{name}/fork", json={"last_turn": 1})).json()
    assert (fork["title"], fork["num_turns"]) == ("Trip", 1)
    deleted = await client.delete(f"/v1/conversations/{name}")
    assert deleted.json() == {"id": name, "object": "conversation.deleted", "deleted": True}
    assert (await client.get(f"/v1/conversations/{name}")).status_code == 404
    assert (await texts(client, fork["id"]))[0] == "one"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("DELETE", ""),
        ("GET", "/items"),
        ("POST", "/fork"),
        ("POST", "/stop"),
        ("GET", "/export"),
        ("GET", "/context"),
        ("GET", "/events"),
    ],
)
async def test_an_unknown_conversation_is_404_in_one_sentence(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    body = {"title": "x"} if (method, path) == ("POST", "") else None
    reply = await client.request(method, f"/v1/conversations/nowhere{path}", json=body)
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == "There is no conversation `nowhere`."


async def test_words_are_found_in_what_was_said(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("It bakes bread in Zürich.")
    await say(client, "Tell me of the bakery")
    found = (await client.get("/v1/conversations/search", params={"q": "zurich bre"})).json()
    assert [hit["conversation_id"] for hit in found["data"]] == ["talk"]
    empty = await client.get("/v1/conversations/search", params={"q": " .? "})
    assert empty.status_code == 400
    assert "word" in empty.json()["error"]["message"]


async def test_an_export_is_imported_as_it_was_and_is_pleasant_to_read(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("Ho \U0001f642")
    await say(client, "Hi\n\nthere")
    exported = (await client.get("/v1/conversations/talk/export")).json()
    brought = (await client.post("/v1/conversations/import", json=exported)).json()
    assert (brought["title"], brought["num_turns"]) == ("Hi there", 1)
    again = (await client.get(f"/v1/conversations/{brought['id']}/export")).json()
    assert again["messages"] == exported["messages"]
    await say(client, "go on", brought["id"])
    assert any("Hi" in piece.text for piece in engine.jobs[-1].prompt)
    markdown = await client.get("/v1/conversations/talk/export", params={"format": "markdown"})
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert markdown.text == "# Hi there\n\n## You\n\nHi\n\nthere\n\n## Assistant\n\nHo \U0001f642\n"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "else"},
        {"version": 2},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "x"}]},
    ],
)
async def test_what_is_no_export_is_refused(
    client: httpx.AsyncClient, change: dict[str, object]
) -> None:
    whole = {"format": "parley.conversation", "version": 1, "title": "", "messages": []}
    reply = await client.post("/v1/conversations/import", json=whole | change)
    assert reply.status_code in (400, 422)
    assert (await client.get("/v1/conversations")).json()["data"] == []


async def test_everything_is_forgotten_only_when_that_is_said(client: httpx.AsyncClient) -> None:
    await say(client, "secret")
    assert (await client.delete("/v1/conversations")).status_code == 400
    assert len((await client.get("/v1/conversations")).json()["data"]) == 1
    gone = await client.delete("/v1/conversations", params={"everything": "true"})
    assert gone.json()["deleted"] == 1
    assert (await client.get("/v1/conversations")).json()["data"] == []


async def test_the_ledger_counts_each_message_and_says_what_is_told_again(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("one two three")
    await say(client, "count to three")
    ledger = (await client.get("/v1/conversations/talk/context")).json()
    assert ledger["context_length"] == engine.model.context_length
    assert [m["role"] for m in ledger["messages"]] == ["user", "assistant"]
    assert all(m["tokens"] > 0 and m["in_context"] for m in ledger["messages"])
    assert ledger["tokens_in_context"] == sum(m["tokens"] for m in ledger["messages"])


async def test_another_device_watches_an_answer_grow_and_stops_it(
    address: str, engine: FakeEngine
) -> None:
    engine.paced = True
    engine.answers("one two three four")
    body = {"message": "count", "session_id": "talk"}
    async with (
        httpx.AsyncClient(base_url=address, timeout=60) as client,
        client.stream("POST", "/chat/stream", json=body) as asking,
    ):
        frames = _frames(asking)
        assert (await anext(frames))["session_id"] == "talk"  # from here on it is in the store
        await engine.write(2)
        async with client.stream("GET", "/v1/conversations/talk/events") as watching:
            growth, seen = _frames(watching), ""
            while seen != "one two":
                seen += (await anext(growth))["text"]
            stopped = await client.post("/v1/conversations/talk/stop")
            assert stopped.json() == {"stopped": 1}
            await engine.write(1)
            last = [frame async for frame in frames][-1]
    assert last["done"]
    assert last["finish_reason"] == "cancelled"


async def _frames(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in reply.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line[6:])
