"""Conversations made short, items that are referred to, and conversations that are taken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from service.ipc.messages import Submit
from tests.fakes.engine import FakeEngine
from tests.sdk.published import load_published, place_of_schema

ASKED: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": "Where is the file?"},
    {"role": "assistant", "content": "I look."},
    {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "src/a.py"},
]


def prompt_of(job: Submit) -> str:
    return "".join(piece.text for piece in job.prompt)


async def test_a_conversation_is_made_short_and_gone_on_with(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("The file is src/a.py.")
    body = {"model": "fake", "input": ASKED, "instructions": "You are an agent."}
    reply = await client.post("/v1/responses/compact", json=body)
    assert reply.status_code == 200, reply.text
    told = prompt_of(engine.jobs[0])
    assert "src/a.py" in told
    assert "Summarize this conversation" in told
    compacted = reply.json()
    if referee := load_published(place_of_schema()):
        referee.check("CompactResource", compacted)
    assert compacted["object"] == "response.compaction"
    assert [item["type"] for item in compacted["output"]] == ["message", "message", "compaction"]
    assert "src/a.py" not in json.dumps(compacted["output"])
    assert compacted["usage"]["total_tokens"] > 0
    again = [*compacted["output"], {"role": "user", "content": "Open it."}]
    reply = await client.post("/v1/responses", json={"input": again})
    assert reply.status_code == 200, reply.text
    told = prompt_of(engine.jobs[1])
    assert "in short:\n\nThe file is src/a.py." in told
    assert "Be kind." in told


async def test_a_kept_response_is_made_short_by_its_id(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    first = (await client.post("/v1/responses", json={"input": "Hello!"})).json()
    body = {"model": "fake", "previous_response_id": first["id"]}
    reply = await client.post("/v1/responses/compact", json=body)
    assert reply.status_code == 200, reply.text
    assert "Hello there, friend." in prompt_of(engine.jobs[1])


@pytest.mark.parametrize("packed", [None, "", "gAAAAABo", "eJwDAAAAAAE=", "ü"])
async def test_anothers_compaction_is_refused(
    client: httpx.AsyncClient, packed: str | None
) -> None:
    items = [{"type": "compaction", "id": "cmp_1", "encrypted_content": packed}]
    reply = await client.post("/v1/responses", json={"input": items})
    assert reply.status_code == 400, reply.text
    assert "was not made by this service" in reply.json()["error"]["message"]


async def test_an_item_may_be_referred_to(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    first = (await client.post("/v1/responses", json={"input": "Hello!"})).json()
    (said,) = first["output"]
    for reference in ({"type": "item_reference", "id": said["id"]}, {"id": said["id"]}):
        items = [reference, {"role": "user", "content": "Who?"}]
        reply = await client.post("/v1/responses", json={"input": items})
        assert reply.status_code == 200, reply.text
        assert "Hello there, friend." in prompt_of(engine.jobs[-1])
    unknown = [{"type": "item_reference", "id": "msg_%"}]
    reply = await client.post("/v1/responses", json={"input": unknown})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == "input[0].id"


async def test_a_conversation_that_is_being_answered_is_locked(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    engine.paced = True
    asking = asyncio.create_task(client.post("/chat", json={"message": "Hi", "session_id": made}))
    async with asyncio.timeout(60):  # the turn is kept after the engine has it
        while not (await client.get(f"/v1/conversations/{made}/items")).json()["data"]:
            pass
    body = {"input": "And?", "conversation": made}
    reply = await client.post("/v1/responses", json=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("conversation_locked", "conversation")
    engine.paced = False
    await engine.write(10)
    assert (await asking).status_code == 200
