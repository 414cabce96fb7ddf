"""What `/v1/completions` refuses, and with which words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.api.dialects.openai.completions import CompletionBody
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FAKE_MODEL, FakeEngine

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, "prompt", "prompt"),
    ({"prompt": []}, "prompt", "prompt is empty; send at least one text."),
    ({"prompt": [1, "a"]}, "prompt", "send a string, a list of strings, a list of token ids"),
    ({"prompt": [True]}, "prompt", "send a string, a list of strings, a list of token ids"),
    ({"prompt": [[]]}, "prompt[0]", "prompt[0] is empty."),
    ({"prompt": [-1]}, "prompt", "-1 is no token id."),
    ({"prompt": [2**31]}, "prompt", "2147483648 is no token id."),
    ({"prompt": {"a": 1}}, "prompt", "prompt"),
    ({"prompt": "a", "suffix": "b"}, "suffix", "so it cannot fill one; use a model that was"),
    ({"prompt": [1], "suffix": "b"}, "suffix", "goes together with text, not with token ids."),
    ({"prompt": "a", "suffix": "b", "logprobs": 0}, "suffix", "do not go together"),
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


@pytest.mark.parametrize(
    ("prompt", "prompts"), [([1, 2], [(1, 2)]), ([[1], [2, 3]], [(1,), (2, 3)])]
)
async def test_token_ids_are_taken_at_their_word(
    client: httpx.AsyncClient, engine: FakeEngine, prompt: Any, prompts: list[tuple[int, ...]]
) -> None:
    reply = await client.post("/v1/completions", json={"prompt": prompt})
    assert reply.status_code == 200, reply.text
    assert [piece.token_ids for job in engine.jobs for piece in job.prompt] == prompts
    assert [choice["index"] for choice in reply.json()["choices"]] == [*range(len(prompts))]


async def test_texts_and_token_ids_are_echoed(client: httpx.AsyncClient) -> None:
    tokens = (await client.post("/tokenize", json={"content": "Once upon"})).json()["tokens"]
    for prompt in ("Once upon", tokens):
        reply = await client.post("/v1/completions", json={"prompt": prompt, "echo": True})
        assert reply.json()["choices"][0]["text"] == "Once uponHello there, friend."


async def test_a_suffix_makes_a_gap(tmp_path: Path) -> None:
    engine = FakeEngine(replace(FAKE_MODEL, infill_tokens=("<PRE>", "<SUF>", "<MID>")))
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        body = {"prompt": "def f():", "suffix": "f()", "n": 2, "max_tokens": 5, "seed": 7}
        reply = await client.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["choices"]) == 2
    told = ["".join(piece.text for piece in job.prompt) for job in engine.jobs]
    assert told == ["<PRE>def f():<SUF>f()<MID>"] * 2
    assert [(job.max_tokens, job.sampling.seed) for job in engine.jobs] == [(5, 7), (5, 8)]
