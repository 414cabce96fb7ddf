"""`/infill`: a gap is filled by a model that was trained for it, and by no other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.domain.chat import PromptPiece
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FAKE_MODEL, FakeEngine

GAP = {"input_prefix": "def f():\n    ", "input_suffix": "\n\nf()"}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(replace(FAKE_MODEL, infill_tokens=("<PRE>", "<SUF>", "<MID>")))


@pytest_asyncio.fixture
async def coder(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        yield client


async def test_the_gap_is_put_to_the_model_in_its_own_tokens(
    coder: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("return 1")
    body = {**GAP, "prompt": "#", "input_extra": [{"text": "x = 1", "filename": "x.py"}]}
    reply = (await coder.post("/infill", json={**body, "seed": -1, "n_predict": 9})).json()
    assert (reply["content"], reply["stop_type"], reply["model"]) == ("return 1", "eos", "fake")
    assert reply["tokens_predicted"] == 2
    (job,) = engine.jobs
    assert (job.sampling.seed, job.max_tokens) == (None, 9)
    assert job.prompt == (
        PromptPiece("x = 1\n", trusted=False),
        PromptPiece("<PRE>", trusted=True),
        PromptPiece(GAP["input_prefix"], trusted=False),
        PromptPiece("<SUF>", trusted=True),
        PromptPiece(GAP["input_suffix"], trusted=False),
        PromptPiece("<MID>", trusted=True),
        PromptPiece("#", trusted=False),
    )


async def test_a_stream_says_the_same_as_the_whole(
    coder: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("return 1 + 1", "return 1 + 1")
    whole = (await coder.post("/infill", json={**GAP, "stop": "+"})).json()
    assert (whole["stop_type"], whole["stopping_word"]) == ("word", "+")
    text = (await coder.post("/infill", json={**GAP, "stop": "+", "stream": True})).text
    frames = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert "".join(frame["content"] for frame in frames) == whole["content"]
    assert [frame["stop"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert {**frames[-1], "content": whole["content"]} == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_prefix": None}, "input_prefix is not accepted"),
        ({"n_predict": 0}, "n_predict is 0; it must be at least 1"),
        ({"stop": [""]}, "each stop string must have 1 to 512 characters."),
        ({"model": "other"}, "The model `other` does not exist"),
        ({"temperature": -1}, "temperature"),
    ],
)
async def test_what_cannot_be_filled_is_refused_by_name(
    change: dict[str, Any], message: str, coder: httpx.AsyncClient
) -> None:
    reply = await coder.post("/infill", json={**GAP, **change})
    assert message in reply.json()["error"]["message"]
    assert reply.status_code in (400, 404)


async def test_a_model_that_was_not_trained_for_it_is_named(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        reply = await client.post("/infill", json=GAP)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (400, "not_supported_error")
    assert error["message"].startswith("fake has no tokens for what stands before and after a gap")
    assert not engine.jobs
