"""Access handed out over HTTP, limits on what is answered, and usage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.access import to_duration
from service.auth.tokens import AccessTokens
from service.domain.access import Limits, Scope
from service.domain.chat import ChatRequest, Message, Role
from service.settings import AuthSettings
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine

ASK = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


@pytest.fixture
async def app(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with running_app(engine, tmp_path) as app:
        yield app


@pytest.fixture
async def tokens(app: FastAPI) -> AccessTokens:
    found: AccessTokens = app.state.parts.access_tokens
    return found


@pytest.fixture
async def admin(app: FastAPI, tokens: AccessTokens) -> AsyncIterator[httpx.AsyncClient]:
    _, secret = await tokens.create("boss", frozenset({Scope.ADMIN}), None)
    async with connected_client(app) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        yield client


async def test_tokens_are_made_listed_replaced_and_revoked(
    admin: httpx.AsyncClient, app: FastAPI
) -> None:
    body = {"name": "guest", "limits": {"tokens_per_day": 1000, "models": ["fake"]}}
    made = (await admin.post("/v1/admin/tokens", json=body)).json()
    secret = made["access_token"]
    assert (made["scopes"], made["limits"]["tokens_per_day"]) == (["chat"], 1000)
    assert "digest" not in made
    listed = (await admin.get("/v1/admin/tokens")).json()
    assert [token["name"] for token in listed] == ["boss", "guest"]
    assert secret not in str(listed)
    rotated = (await admin.post("/v1/admin/tokens/guest/rotate")).json()["access_token"]
    async with connected_client(app) as guest:
        old = {"Authorization": f"Bearer {secret}"}
        assert (await guest.get("/v1/models", headers=old)).status_code == 401
        new = {"Authorization": f"Bearer {rotated}"}
        assert (await guest.get("/v1/models", headers=new)).status_code == 200
        assert (await guest.get("/v1/admin/tokens", headers=new)).status_code == 403
        assert (await admin.delete("/v1/admin/tokens/guest")).json()["revoked_at"] is not None
        assert (await guest.get("/v1/models", headers=new)).status_code == 401
    acts = (await admin.get("/v1/admin/audit")).json()
    assert [(act["actor"], act["act"], act["about"]) for act in acts] == [
        ("boss", "revoke", "guest"),
        ("boss", "rotate", "guest"),
        ("boss", "create", "guest"),
        ("operator", "create", "boss"),
    ]


async def test_who_had_another_model_answer_everybody_is_noted(
    admin: httpx.AsyncClient, app: FastAPI, tokens: AccessTokens
) -> None:
    scopes = frozenset({Scope.CHAT, Scope.MODELS_SWITCH})
    _, secret = await tokens.create("switcher", scopes, None)
    async with connected_client(app) as switcher:
        switcher.headers["Authorization"] = f"Bearer {secret}"
        for whom in ("me", "everybody"):
            body = {"model": "pocket", "for": whom}
            reply = await switcher.post("/v1/models/switch", json=body)
            assert reply.status_code in (200, 202), reply.text
    acts = (await admin.get("/v1/admin/audit")).json()
    switches = [(act["actor"], act["about"]) for act in acts if act["act"] == "switch"]
    assert switches == [("switcher", "pocket")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": "boss"}, 400),
        ({"name": "x", "scopes": ["all"]}, 422),
        ({"name": "x", "limits": {"tokens_per_day": 0}}, 422),
        ({"name": "x", "limit": {}}, 422),
    ],
)
async def test_a_token_that_cannot_be_made_is_refused(
    admin: httpx.AsyncClient, body: dict[str, object], status: int
) -> None:
    reply = await admin.post("/v1/admin/tokens", json=body)
    assert reply.status_code in (400, status)
    assert reply.json()["error"]["message"]


async def test_unknown_tokens_are_named(admin: httpx.AsyncClient) -> None:
    reply = await admin.delete("/v1/admin/tokens/nobody")
    assert reply.status_code == 400
    assert "nobody" in reply.json()["error"]["message"]


async def test_what_is_answered_is_within_the_limits_and_counted(
    app: FastAPI, tokens: AccessTokens, engine: FakeEngine
) -> None:
    limits = Limits(tokens_per_minute=60, weight=2.0)
    _, secret = await tokens.create("guest", frozenset({Scope.CHAT}), None, limits=limits)
    engine.answers("one two three", "four")
    async with connected_client(app) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        first = await client.post("/v1/chat/completions", json=ASK)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "60"
        assert first.headers["x-ratelimit-reset-tokens"] in {
            "1m0s",
            *(f"{n}s" for n in range(30, 60)),
        }
        usage = first.json()["usage"]
        assert engine.jobs[0].weight == 2.0
        left = 60 - usage["total_tokens"]
        too_many = {**ASK, "max_tokens": left - usage["prompt_tokens"] + 1}
        refused = await client.post("/v1/chat/completions", json=too_many)
        assert refused.status_code == 429
        assert refused.json()["error"]["type"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        for vendor in ("x-ratelimit-{}-tokens", "anthropic-ratelimit-tokens-{}"):
            assert refused.headers[vendor.format("limit")] == "60"
            assert refused.headers[vendor.format("remaining")] == str(left)
        reset = refused.headers["anthropic-ratelimit-tokens-reset"]
        now = datetime.now(UTC)
        assert reset.endswith("Z")
        assert timedelta(0) < datetime.fromisoformat(reset) - now <= timedelta(seconds=62)
        assert not [name for name in refused.headers if "put-tokens" in name]
        just_enough = {**ASK, "max_tokens": left - usage["prompt_tokens"]}
        assert (await client.post("/v1/chat/completions", json=just_enough)).status_code == 200
        mine = (await client.get("/v1/me/usage")).json()["data"]
        assert [(row["model"], row["answers"]) for row in mine] == [("fake", 2)]
        assert mine[0]["completion_tokens"] == 4
        text = (await client.get("/v1/me/usage", params={"format": "csv"})).text.splitlines()
        assert text[0].startswith("day,model,answers")
        assert len(text) == 2


async def test_days_and_months_say_when_they_are_over_and_no_limit_says_nothing(
    app: FastAPI, tokens: AccessTokens
) -> None:
    for name, limits in {
        "day": Limits(tokens_per_day=100, tokens_per_month=1000, tokens_per_minute=500),
        "month": Limits(tokens_per_month=100, tokens_per_day=1000),
        "streams": Limits(streams=9),
        "free": Limits(),
    }.items():
        _, secret = await tokens.create(name, frozenset({Scope.CHAT}), None, limits=limits)
        before = datetime.now(UTC)
        async with connected_client(app) as client:
            client.headers["Authorization"] = f"Bearer {secret}"
            headers = (await client.post("/v1/chat/completions", json=ASK)).headers
        told = {key: value for key, value in headers.items() if "ratelimit" in key}
        if not limits.tokens_per_month:
            assert told == {}
            continue
        assert len(told) == 6
        assert told["anthropic-ratelimit-tokens-limit"] == "100"
        reset = datetime.fromisoformat(told["anthropic-ratelimit-tokens-reset"])
        following = before + timedelta(days=1)
        while name == "month" and following.day != 1:
            following += timedelta(days=1)
        ends = following.replace(hour=0, minute=0, second=0, microsecond=0)
        if before.date() == datetime.now(UTC).date():  # else midnight came in between
            assert ends <= reset <= ends + timedelta(minutes=1)
        assert told["x-ratelimit-reset-tokens"].endswith("s")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "0s"), (0.2, "1s"), (59.5, "1m0s"), (61, "1m1s"), (3600, "1h0m0s"), (90061, "25h1m1s")],
)
def test_durations_are_told_as_openai_does(seconds: float, told: str) -> None:
    assert to_duration(seconds) == told


async def test_one_answer_at_a_time_means_one(
    app: FastAPI, tokens: AccessTokens, engine: FakeEngine
) -> None:
    _, secret = await tokens.create("g", frozenset({Scope.CHAT}), None, limits=Limits(streams=1))
    engine.paced = True
    async with connected_client(app) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        parts = app.state.parts
        principal = await tokens.principal_of(secret)
        request = ChatRequest((Message(Role.USER, "Hi"),))
        async with await parts.chat.start(request, principal):
            refused = await client.post("/v1/messages", json=ASK)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
        engine.paced = False
        assert (await client.post("/v1/messages", json=ASK)).status_code == 200


async def test_a_token_for_other_models_is_refused_by_name(
    app: FastAPI, tokens: AccessTokens
) -> None:
    limits = Limits(models=("other",))
    _, secret = await tokens.create("g", frozenset({Scope.CHAT}), None, limits=limits)
    async with connected_client(app) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        refused = await client.post("/v1/chat/completions", json=ASK)
        assert refused.status_code == 403
        assert "may use other, and fake answers now" in refused.json()["error"]["message"]


async def test_everybodys_usage_is_for_administrators(
    admin: httpx.AsyncClient, tokens: AccessTokens, app: FastAPI
) -> None:
    made, secret = await tokens.create("guest", frozenset({Scope.CHAT}), None)
    async with connected_client(app) as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        await client.post("/chat", json={"message": "Hi"})
        assert (await client.get("/v1/admin/usage")).status_code == 403
    rows = (await admin.get("/v1/admin/usage")).json()["data"]
    assert [(row["principal_id"], row["answers"]) for row in rows] == [(made.id, 1)]


async def test_strangers_are_limited_by_address_and_together(
    engine: FakeEngine, tmp_path: Path
) -> None:
    auth = AuthSettings(anonymous_requests_per_minute=2, anonymous_tokens_per_minute=100)
    async with running_app(engine, tmp_path, auth=auth) as app:
        statuses = []
        for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"):
            transport = httpx.ASGITransport(app, client=(address, 999))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://parley.localhost"
            ) as client:
                statuses.append((await client.post("/v1/chat/completions", json=ASK)).status_code)
        assert statuses == [200, 200, 429, 200]
        too_many = {**ASK, "max_tokens": 99}
        async with connected_client(app) as client:
            refused = await client.post("/v1/chat/completions", json=too_many)
            assert refused.status_code in (400, 429)
            assert "100 tokens a minute" in refused.json()["error"]["message"]
