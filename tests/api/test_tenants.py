"""Two tenants: nothing that belongs to one exists for the other, in any dialect."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from service.auth.tokens import AccessTokens
from service.domain.access import Scope
from service.settings import Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import open_database
from tests.api.running import connected_client
from tests.fakes.engine import FakeEngine

WORD = "zugvogel"
SAID = [{"role": "user", "content": f"Say {WORD}."}]
# What a route with an id in its path is sent; the others take nothing.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/conversations/{conversation_id}": {"metadata": {"title": "taken"}},
    "/v1/conversations/{conversation_id}/fork": {"last_turn": 1},
    "/v1/conversations/{conversation_id}/items": {
        "items": [{"type": "message", "role": "user", "content": "mine now"}]
    },
}
# Names of what all tenants share, and what only an administrator may name.
SHARED = {"/v1/models/{model_id:path}", "/v1/admin/tokens/{named}"}
SHARED |= {"/v1/admin/tokens/{named}/rotate"}
# Every way to have something answered, and to name an earlier answer by it.
ANSWERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/chat", {"message": SAID[0]["content"], "session_id": "{conversation_id}"}),
    ("/chat/stream", {"message": SAID[0]["content"], "session_id": "{conversation_id}"}),
    ("/api/v1/chat", {"message": SAID[0]["content"], "conversation_id": "{conversation_id}"}),
    ("/v1/chat/completions", {"messages": SAID}),
    ("/v1/chat/completions/think", {"messages": SAID}),
    ("/v1/messages", {"model": "fake", "messages": SAID, "max_tokens": 16}),
    ("/v1/messages/think", {"model": "fake", "messages": SAID, "max_tokens": 16}),
    ("/v1/responses", {"input": SAID[0]["content"]}),
    ("/v1/responses/compact", {"model": "fake", "input": SAID[0]["content"]}),
    ("/v1/completions", {"prompt": SAID[0]["content"]}),
    ("/api/v1/generate", {"prompt": SAID[0]["content"]}),
)


@dataclass(frozen=True)
class Tenant:
    client: httpx.AsyncClient
    ids: dict[str, str]


@pytest_asyncio.fixture
async def clients(app: FastAPI, tmp_path: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    """One for each of two access tokens."""
    database = await open_database(Settings(state_dir=tmp_path))
    tokens = AccessTokens(SqlAccessTokens(database))
    async with connected_client(app) as mine, connected_client(app) as yours:
        for name, client in (("mine", mine), ("yours", yours)):
            _, secret = await tokens.create(name, frozenset({Scope.CHAT}), None)
            client.headers["Authorization"] = f"Bearer {secret}"
        yield [mine, yours]
    await database.aclose()


@pytest_asyncio.fixture
async def mine(clients: list[httpx.AsyncClient]) -> Tenant:
    """Somebody with a conversation, an item in it, and a response that is kept."""
    client = clients[0]
    reply = await client.post("/chat", json={"message": f"Say {WORD}."})
    session = reply.json()["session_id"]
    items = (await client.get(f"/v1/conversations/{session}/items")).json()["data"]
    response = await client.post("/v1/responses", json={"input": f"Say {WORD}."})
    ids = {
        "conversation_id": session,
        "item_id": items[0]["id"],
        "response_id": response.json()["id"],
    }
    return Tenant(client, ids)


@pytest.fixture
def yours(clients: list[httpx.AsyncClient]) -> httpx.AsyncClient:
    return clients[1]


def routes_with_ids(routes: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from routes_with_ids(included.routes, prefix)
        elif "{" in getattr(route, "path", ""):
            yield from ((method, prefix + route.path) for method in route.methods or ())


def unknown(ids: dict[str, str]) -> dict[str, str]:
    """Ids of the same shape that nobody has."""
    return {name: re.sub(r"[0-9a-f]", "0", text) for name, text in ids.items()}


async def test_every_route_with_an_id_says_the_same_of_another_s_as_of_none(
    app: FastAPI, mine: Tenant, yours: httpx.AsyncClient
) -> None:
    asked = {each for each in routes_with_ids(app.routes) if each[1] not in SHARED}
    assert len(asked) > 15
    none = unknown(mine.ids)
    for method, template in sorted(asked):
        said = []
        for ids in (mine.ids, none):
            path = template.format(**ids)
            body = BODIES.get(template) if method == "POST" else None
            reply = await yours.request(method, path, json=body)
            text = reply.text
            for name, other in none.items():
                text = text.replace(ids[name], other)
            said.append((reply.status_code, text))
        assert said[0] == said[1], (method, template)
        assert said[0][0] == 404, (method, template, said[0])
        assert WORD not in said[0][1]


async def test_lists_searches_and_exports_show_one_s_own_only(
    mine: Tenant, yours: httpx.AsyncClient
) -> None:
    for path in (
        "/sessions",
        "/v1/conversations",
        f"/v1/conversations/search?q={WORD}",
        "/v1/me/usage",
        "/login",
    ):
        text = (await yours.get(path)).text
        assert WORD not in text.replace(f'"query":"{WORD}"', "")
        assert not [text for each in mine.ids.values() if each in text], path


async def test_going_on_from_another_s_answer_is_going_on_from_none(
    mine: Tenant, yours: httpx.AsyncClient
) -> None:
    none = unknown(mine.ids)
    for path, field, key in (
        ("/v1/responses", "previous_response_id", "response_id"),
        ("/v1/responses", "conversation", "conversation_id"),
        ("/v1/responses/compact", "previous_response_id", "response_id"),
    ):
        said = []
        for ids in (mine.ids, none):
            body = {"model": "fake", "input": "And?", field: ids[key]}
            reply = await yours.post(path, json=body)
            said.append((reply.status_code, reply.text.replace(ids[key], none[key])))
        assert said[0] == said[1]
        assert said[0][0] == 404, said[0]


async def test_the_same_name_is_another_conversation_for_everybody(
    mine: Tenant, yours: httpx.AsyncClient, engine: FakeEngine
) -> None:
    name = mine.ids["conversation_id"]
    before = (await mine.client.get(f"/v1/conversations/{name}/export")).text
    for path, field in (("/chat", "session_id"), ("/api/v1/chat", "conversation_id")):
        num = len(engine.jobs)
        reply = await yours.post(path, json={"message": "What did I say?", field: name})
        assert reply.status_code == 200
        assert WORD not in repr(engine.jobs[num:])
        assert WORD not in reply.text
    assert (await yours.delete(f"/v1/conversations/{name}")).status_code == 200
    assert (await mine.client.get(f"/v1/conversations/{name}/export")).text == before


async def test_equal_prompts_of_two_tenants_share_no_cache_in_any_dialect(
    clients: list[httpx.AsyncClient], engine: FakeEngine
) -> None:
    keys: list[set[str]] = []
    for client in clients:
        num = len(engine.jobs)
        for path, body in ANSWERS:
            sent = {
                name: "talk" if text == "{conversation_id}" else text for name, text in body.items()
            }
            reply = await client.post(path, json=sent)
            assert reply.status_code == 200, (path, reply.text)
        jobs = engine.jobs[num:]
        assert len(jobs) == len(ANSWERS)
        keys.append({job.cache_key for job in jobs})
    assert keys[0].isdisjoint(keys[1])
    assert "" not in keys[0] | keys[1]


async def test_every_way_to_be_answered_was_tried(app: FastAPI) -> None:
    answering = {path for path, _ in ANSWERS}
    known = {
        path for _, path in app_paths(app) if re.search(r"chat|messages|responses|gen|infill", path)
    }
    told_elsewhere = {
        *("/chat/clear", "/api/v1/chat/new", "/api/v1/chat/models", "/api/v1/chat/switch-model"),
        *("/v1/chat/completions/input_tokens", "/v1/messages/count_tokens", "/v1/messages/clean"),
        *("/v1/responses/input_tokens", "/infill"),  # the fake model can't fill gaps
    }
    assert {path for path in known if "{" not in path} - told_elsewhere <= answering


def app_paths(app: FastAPI) -> set[tuple[str, str]]:
    return {(m.upper(), path) for path, ms in app.openapi()["paths"].items() for m in ms}
