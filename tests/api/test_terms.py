"""How urgent a request is, and how long its answer is of use: by headers, for any dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.chat import Priority
from service.domain.errors import DeadlineMissed
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine

MESSAGES = [{"role": "user", "content": "Hello"}]
PATHS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions/think", {"messages": MESSAGES}),
    ("/v1/completions", {"prompt": "Hello"}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9, "model": "fake"}),
    ("/v1/responses", {"input": "Hello"}),
    ("/chat", {"user_input": "Hello"}),
    ("/chat/stream", {"message": "Hello"}),
    ("/api/v1/generate", {"prompt": "Hello"}),
]
STATED = {
    "X-Parley-Priority": "Batch",
    "x-parley-first-token-seconds": "2.5",
    "x-parley-deadline-seconds": "30",
}


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_every_dialect_hands_them_on(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    reply = await client.post(path, json=body, headers=STATED)
    assert reply.status_code == 200, reply.text
    job = engine.jobs[-1]
    assert (job.priority, job.first_token_seconds, job.deadline_seconds) == (
        Priority.BATCH,
        2.5,
        30.0,
    )


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_without_them_nobody_waits_behind_others(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    assert (await client.post(path, json=body)).status_code == 200
    job = engine.jobs[-1]
    assert job.priority is Priority.INTERACTIVE
    assert job.first_token_seconds is job.deadline_seconds is None


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_no_answer_takes_longer_than_the_operator_lets_it(
    engine: FakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
) -> None:
    monkeypatch.setenv("PARLEY_CHAT__MAX_SECONDS", "20")
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        for stated in ({}, {"x-parley-deadline-seconds": "30"}, {"x-parley-deadline-seconds": "5"}):
            reply = await client.post(path, json=body, headers=stated)
            assert reply.status_code == 200, reply.text
    assert [job.deadline_seconds for job in engine.jobs[-3:]] == [20, 20, 5]


WRONG: list[tuple[dict[str, str], str]] = [
    (
        {"x-parley-priority": "urgent"},
        "x-parley-priority is 'urgent'; it must be interactive or batch.",
    ),
    (
        {"x-parley-deadline-seconds": "soon"},
        "x-parley-deadline-seconds is 'soon'; it must be a number of seconds above 0, up to 86400.",
    ),
    ({"x-parley-deadline-seconds": "0"}, "x-parley-deadline-seconds is '0'; it must be"),
    ({"x-parley-deadline-seconds": "-3"}, "x-parley-deadline-seconds is '-3'; it must be"),
    ({"x-parley-deadline-seconds": "nan"}, "x-parley-deadline-seconds is 'nan'; it must be"),
    ({"x-parley-deadline-seconds": "inf"}, "x-parley-deadline-seconds is 'inf'; it must be"),
    ({"x-parley-first-token-seconds": "1e9"}, "x-parley-first-token-seconds is '1e9'; it must"),
    ({"x-parley-first-token-seconds": ""}, "x-parley-first-token-seconds is ''; it must be"),
]


@pytest.mark.parametrize(("headers", "sentence"), WRONG)
async def test_nonsense_is_refused_in_a_sentence(
    client: httpx.AsyncClient, engine: FakeEngine, headers: dict[str, str], sentence: str
) -> None:
    reply = await client.post("/v1/chat/completions", json=PATHS[0][1], headers=headers)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["message"].startswith(sentence)
    assert error["param"] == next(iter(headers))
    assert reply.headers["x-request-id"]
    assert engine.jobs == []


async def test_each_dialect_refuses_in_its_own_words(client: httpx.AsyncClient) -> None:
    headers = {"x-parley-priority": "urgent"}
    reply = await client.post("/v1/messages", json=PATHS[3][1], headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert reply.json()["type"] == "error"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"service_tier": "flex"}, Priority.BATCH),
        ({"priority": 3}, Priority.BATCH),
        ({"service_tier": "auto"}, Priority.INTERACTIVE),
        ({"service_tier": "default", "priority": 0}, Priority.INTERACTIVE),
        ({"service_tier": "priority"}, Priority.INTERACTIVE),
        ({"priority": -1}, Priority.INTERACTIVE),
    ],
)
async def test_peers_names_for_it_are_understood(
    client: httpx.AsyncClient, engine: FakeEngine, said: dict[str, Any], expected: Priority
) -> None:
    reply = await client.post("/v1/chat/completions", json={"messages": MESSAGES, **said})
    assert reply.status_code == 200
    assert engine.jobs[-1].priority is expected


async def test_a_tier_that_there_is_not_is_refused(client: httpx.AsyncClient) -> None:
    body = {"messages": MESSAGES, "service_tier": "gold"}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == (
        "service_tier is 'gold'; it must be one of auto, default, flex, priority, scale."
    )


async def test_the_header_wins_over_the_body(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"messages": MESSAGES, "service_tier": "flex"}
    headers = {"x-parley-priority": "interactive"}
    assert (await client.post("/v1/chat/completions", json=body, headers=headers)).is_success
    assert engine.jobs[-1].priority is Priority.INTERACTIVE


async def test_what_comes_too_late_is_told_when_to_come_back(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.refuses(DeadlineMissed("The first token is expected in 9.0 s.", retry_after_seconds=7.0))
    reply = await client.post("/v1/chat/completions", json=PATHS[0][1], headers=STATED)
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "7"
    assert reply.json()["error"]["code"] == "deadline_missed"
