"""Which model answers, and the way to ask for another, over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.models import _StateStream
from service.auth.tokens import AccessTokens
from service.chat.switching import Switching
from service.domain.access import Scope
from service.domain.errors import Conflict
from service.ipc.status import Phase
from service.models.registry import BUILT_IN_DIR
from service.settings import Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import open_database
from tests.api.running import connected_client
from tests.fakes.engine import FakeEngine

POCKET = BUILT_IN_DIR / "pocket.gguf"


async def test_the_state_says_which_model_answers(client: httpx.AsyncClient) -> None:
    state = (await client.get("/v1/models/state")).json()
    assert (state["object"], state["current"], state["switch"]) == ("model.state", "fake", None)
    assert state["engines"] == [
        {
            "id": 1,
            "model": "fake",
            "mode": "chat",
            "state": "ready",
            "progress": 1.0,
            "current": True,
            "guest": False,
        }
    ]


async def test_another_model_is_asked_for_by_its_name(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    reply = await client.post("/v1/models/switch", json={"model": "Pocket"})
    assert reply.status_code == 202
    switch = reply.json()["switch"]
    assert (switch["model"], switch["previous"], switch["phase"]) == ("pocket", "fake", "done")
    assert [(command.name, command.path) for command in engine.switches] == [("pocket", POCKET)]


async def test_what_has_to_be_fetched_goes_to_the_supervisor_without_a_path(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    body = {"model": "acme/Tiny-GGUF:tiny.gguf", "wait": True}
    assert (await client.post("/v1/models/switch", json=body)).status_code == 200
    (command,) = engine.switches
    assert (command.name, command.path, command.source) == ("tiny", None, body["model"])


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("pokcet", 404, "nearest names"),
        ("/nowhere/model.gguf", 400, "/nowhere/model.gguf"),
        ("", 400, "model"),
    ],
)
async def test_what_is_no_model_is_refused_in_one_sentence(
    client: httpx.AsyncClient, engine: FakeEngine, model: str, status: int, words: str
) -> None:
    reply = await client.post("/v1/models/switch", json={"model": model})
    assert (reply.status_code, words in reply.json()["error"]["message"]) == (status, True)
    assert engine.switches == []


async def test_one_switch_at_a_time(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.refuses(Conflict("The switch to other is still going on (loading)."))
    reply = await client.post("/v1/models/switch", json={"model": "pocket"})
    assert reply.status_code == 409
    assert "still going on" in reply.json()["error"]["message"]


async def test_a_scope_is_for_names_and_paths_are_for_administrators(
    app: FastAPI, tmp_path: Path, engine: FakeEngine
) -> None:
    database = await open_database(Settings(state_dir=tmp_path))
    tokens = AccessTokens(SqlAccessTokens(database))
    both = frozenset({Scope.MODELS_SWITCH, Scope.ADMIN})
    secrets = [
        (await tokens.create(name, scopes, None))[1]
        for name, scopes in (
            ("chats", frozenset({Scope.CHAT})),
            ("switches", frozenset({Scope.MODELS_SWITCH})),
            ("rules", both),
        )
    ]
    statuses = {}
    async with connected_client(app) as client:
        for secret in secrets:
            headers = {"Authorization": f"Bearer {secret}"}
            for model in ("pocket", str(POCKET)):
                reply = await client.post(
                    "/v1/models/switch", json={"model": model}, headers=headers
                )
                statuses[secret, model] = reply.status_code
    await database.aclose()
    assert list(statuses.values()) == [200, 403, 202, 403, 202, 202]
    assert [s.beside for s in engine.switches] == [True, False, False, False]


async def test_changes_are_told_as_events_until_the_service_stops(engine: FakeEngine) -> None:
    sent: list[bytes] = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sent.append(body)
        if len(sent) == 2:
            engine.tells(replace(engine.status, notice="Something is going on."))
        elif len(sent) == 3:
            engine.tells(replace(engine.status, phase=Phase.DRAINING))

    async def receive() -> dict[str, object]:
        await engine.until(lambda: False)
        raise AssertionError

    stream = _StateStream(Switching(engine, Settings()), keepalive_seconds=10)
    await stream({"type": "http"}, receive, send)  # type: ignore[arg-type]
    told = [json.loads(body.partition(b"data: ")[2]) for body in sent[1:4]]
    assert [state["notice"] for state in told] == [None, *["Something is going on."] * 2]
    assert sent[4:] == [b""]
