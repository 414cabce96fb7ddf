"""What `/v1/completions` refuses, and with which words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.api.dialects.openai.completions import CompletionBody
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, "prompt", "prompt"),
    ({"prompt": []}, "prompt", "prompt is empty; send at least one text."),
    ({"prompt": [1, 2]}, "prompt", "token ids are not supported"),
    ({"prompt": {"a": 1}}, "prompt", "prompt"),
    ({"prompt": "a", "suffix": "b"}, "suffix", "suffix is not supported; leave it out."),
    ({"prompt": "a", "best_of": 3}, "best_of", "best_of is 3; answers are not compared"),
    ({"prompt": "a", "logprobs": 6}, "logprobs", "logprobs is 6; it must be between 0 and 5."),
    ({"prompt": "a", "logprobs": 0, "echo": True}, "echo", "how likely the prompt is"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be at least 1."),
    ({"prompt": "a", "n": 9}, "n", "n is 9; it must be between 1 and 8."),
    ({"prompt": ["a"] * 3, "n": 3}, "n", "3 prompts with 3 answers each ask for 9 answers"),
    ({"prompt": ["a"] * 9}, "prompt", "at most 8 are given to one request."),
    ({"prompt": "a", "temperature": 3}, "temperature", "temperature is 3.0; it must be"),
]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest_asyncio.fixture
async def client(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        yield client


@pytest.mark.parametrize(("body", "param", "sentence"), WRONG, ids=lambda v: str(v)[:40])
async def test_wrong_input_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str, sentence: str
) -> None:
    reply = await client.post("/v1/completions", json=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == param
    assert sentence in error["message"]


@pytest.mark.parametrize("name", sorted(set(CompletionBody.model_fields) - {"prompt"}))
async def test_null_means_absent(client: httpx.AsyncClient, name: str) -> None:
    reply = await client.post("/v1/completions", json={"prompt": "a", name: None})
    assert reply.status_code == 200, reply.text


async def test_sixteen_tokens_are_the_default(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    for body, wanted in (({}, 16), ({"max_tokens": 3}, 3), ({"n_predict": -1}, None)):
        await client.post("/v1/completions", json={"prompt": "a", **body})
        assert engine.jobs[-1].max_tokens == wanted


async def test_what_looks_like_a_thought_is_text(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers("<think>hm</think> yes")
    reply = await client.post("/v1/completions", json={"prompt": "a"})
    assert reply.json()["choices"][0]["text"] == "<think>hm</think> yes"
