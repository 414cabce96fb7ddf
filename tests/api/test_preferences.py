"""A caller chooses a model for itself, beside the one that answers everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from fastapi import FastAPI

from service.auth.tokens import AccessTokens
from service.domain.access import Limits, Scope
from service.domain.errors import SwitchFailed
from service.settings import Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import open_database
from tests.api.running import connected_client
from tests.fakes.engine import FakeEngine

SWITCH = "/v1/models/switch"


@pytest_asyncio.fixture
async def tokens(tmp_path: Path, app: FastAPI) -> AsyncIterator[AccessTokens]:
    database = await open_database(Settings(state_dir=tmp_path))
    yield AccessTokens(SqlAccessTokens(database))
    await database.aclose()


async def caller(app: FastAPI, tokens: AccessTokens, name: str, *scopes: Scope) -> dict[str, str]:
    _, secret = await tokens.create(name, frozenset(scopes), None)
    return {"Authorization": f"Bearer {secret}"}


async def test_each_caller_is_answered_by_its_own_choice(
    app: FastAPI, engine: FakeEngine, tokens: AccessTokens
) -> None:
    ann = await caller(app, tokens, "ann", Scope.CHAT)
    ben = await caller(app, tokens, "ben", Scope.CHAT)
    async with connected_client(app) as client:
        told = await client.post(SWITCH, json={"model": "pocket"}, headers=ann)
        assert (told.status_code, told.json()["current"]) == (200, "fake")
        for headers in (ann, ben):
            reply = await client.post("/chat", json={"message": "Hi"}, headers=headers)
            assert reply.status_code == 200
        assert [len(engine.guests["pocket"].jobs), len(engine.jobs)] == [1, 1]
        back = await client.post(SWITCH, json={"model": "fake", "for": "me"}, headers=ann)
        assert back.status_code == 404  # the fake is in no catalogue


async def test_a_choice_can_be_for_one_conversation(
    app: FastAPI, engine: FakeEngine, tokens: AccessTokens
) -> None:
    ann = await caller(app, tokens, "ann", Scope.CHAT)
    async with connected_client(app) as client:
        body = {"model_name": "pocket", "conversation_id": "one"}
        told = await client.post("/api/v1/chat/switch-model", json=body, headers=ann)
        assert told.json()["message"] == "Successfully switched to pocket"
        for name in ("one", "two"):
            said = {"message": "Hi", "conversation_id": name}
            assert (await client.post("/api/v1/chat", json=said, headers=ann)).status_code == 200
    assert [len(engine.guests["pocket"].jobs), len(engine.jobs)] == [1, 1]


async def test_a_choice_that_has_left_memory_is_brought_back(
    app: FastAPI, engine: FakeEngine, tokens: AccessTokens
) -> None:
    ann = await caller(app, tokens, "ann", Scope.CHAT)
    async with connected_client(app) as client:
        await client.post(SWITCH, json={"model": "pocket"}, headers=ann)
        engine.guests.clear()
        assert (await client.post("/chat", json={"message": "Hi"}, headers=ann)).status_code == 200
        assert len(engine.switches) == 2
        assert len(engine.guests["pocket"].jobs) == 1
        engine.guests.clear()
        engine.refuses(SwitchFailed("There is no memory for pocket beside fake."))
        reply = await client.post("/chat", json={"message": "Hi"}, headers=ann)
        assert (reply.status_code, "no memory for pocket" in reply.text) == (503, True)


async def test_who_may_choose_what(app: FastAPI, engine: FakeEngine, tokens: AccessTokens) -> None:
    embeds = await caller(app, tokens, "embeds", Scope.EMBED)
    chats = await caller(app, tokens, "chats", Scope.CHAT)
    both = await caller(app, tokens, "both", Scope.CHAT, Scope.MODELS_SWITCH)
    _, secret = await tokens.create(
        "bound", frozenset({Scope.CHAT}), None, limits=Limits(models=("fake",))
    )
    bound = {"Authorization": f"Bearer {secret}"}
    async with connected_client(app) as client:

        async def choose(headers: dict[str, str], **body: str) -> httpx.Response:
            return await client.post(SWITCH, json={"model": "pocket", **body}, headers=headers)

        assert "scope chat" in (await choose(embeds)).text
        refused = await choose(chats, **{"for": "everybody"})
        assert (refused.status_code, "models:switch" in refused.text) == (403, True)
        away = await choose(chats, model="qwen2.5-3b-instruct")
        assert (away.status_code, "not on this machine" in away.text) == (403, True)
        assert (await choose(bound)).status_code == 403
        assert (await choose(both, **{"for": "me"})).json()["current"] == "fake"
        assert (await choose(both)).status_code == 202
    assert engine.model.name == "pocket"
