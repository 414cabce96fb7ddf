"""OpenAI's own client, and what it can ask of a real service on the real Pocket model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.parley import Parley

pytestmark = [pytest.mark.model, pytest.mark.sdk]
QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
STORY: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me a story about a dog."}
]


@pytest.fixture
def client(parley: Parley) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", timeout=60) as client:
        yield client


def test_the_likeliest_token_is_the_one_that_was_written(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="pocket", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3
    )
    choice = reply.choices[0]
    assert choice.logprobs is not None
    told = choice.logprobs.content or []
    assert "".join(entry.token for entry in told) == choice.message.content
    for entry in told:
        assert entry.token == entry.top_logprobs[0].token
        chances = [math.exp(other.logprob) for other in entry.top_logprobs]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) <= 1.0001


def test_choices_have_seeds_that_follow_one_another(client: openai.OpenAI) -> None:
    together = client.chat.completions.create(
        model="pocket", messages=STORY, n=3, seed=3, max_tokens=24, temperature=1.2
    )
    texts = [choice.message.content for choice in together.choices]
    assert len(set(texts)) == 3
    alone = client.chat.completions.create(
        model="pocket", messages=STORY, seed=4, max_tokens=24, temperature=1.2
    )
    assert alone.usage is not None
    assert together.usage is not None
    assert alone.usage.prompt_tokens == together.usage.prompt_tokens
    assert together.usage.completion_tokens >= alone.usage.completion_tokens


def test_an_answer_does_not_end_before_it_may(client: openai.OpenAI) -> None:
    options = {"min_tokens": 40, "dry_multiplier": 0.8, "xtc_probability": 0.1, "top_k": 40}
    reply = client.chat.completions.create(
        model="pocket", messages=QUESTION, max_tokens=60, seed=1, extra_body=options
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens >= 40


def test_a_text_goes_on_without_a_template(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="pocket", prompt="The capital of France is", temperature=0, max_tokens=3
    )
    assert "Paris" in reply.choices[0].text
    assert reply.usage is not None
    assert reply.usage.prompt_tokens < 8
