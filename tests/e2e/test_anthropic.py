"""The vendor's client and a real service on the real Pocket model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, TextBlock

from tests.e2e.parley import Parley

pytestmark = [pytest.mark.model, pytest.mark.sdk]
GREEDY = {"temperature": 0}
PREAMBLE = "x-anthropic-billing-header: cc_version=2.1.37; cch={};\n"


@pytest.fixture
def client(parley: Parley) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=parley.url, api_key="none", timeout=60) as client:
        yield client


def asking(*turns: str) -> dict[str, Any]:
    """What to send: turns of user and assistant, the user's first and last."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    return {"model": "pocket", "max_tokens": 100, "messages": messages, "extra_body": GREEDY}


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def test_a_question_is_answered_and_its_tokens_are_as_counted(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**asking("What is the capital of France?"))
    assert "Paris" in text_of(message)
    assert message.stop_reason == "end_turn"
    counted = client.messages.count_tokens(
        model="pocket", messages=[{"role": "user", "content": "What is the capital of France?"}]
    )
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_stream_says_what_the_whole_answer_says(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**asking("Count from 1 to 10."))
    with client.messages.stream(**asking("Count from 1 to 10.")) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(pieces) > 5
    assert text_of(streamed) == text_of(whole) == "".join(pieces)
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_the_cache_outlives_a_preamble_that_changes(client: anthropic.Anthropic) -> None:
    told = "My name is Alice. Please remember it."
    first = client.messages.create(system=PREAMBLE.format("5f3a") + "Be kind.", **asking(told))
    second = client.messages.create(
        system=PREAMBLE.format("00c1") + "Be kind.",
        **asking(told, text_of(first), "What is my name?"),
    )
    cached = first.usage.cache_read_input_tokens or 0
    assert (second.usage.cache_read_input_tokens or 0) >= first.usage.input_tokens + cached


def test_a_stop_sequence_and_a_limit_end_the_answer(client: anthropic.Anthropic) -> None:
    stopped = client.messages.create(stop_sequences=["5"], **asking("Count from 1 to 10."))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "5")
    assert "4" in text_of(stopped)
    assert "5" not in text_of(stopped)
    cut = client.messages.create(**asking("Count from 1 to 10.") | {"max_tokens": 4})
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 4)


def test_thoughts_are_shown_where_they_are_asked_for(parley: Parley) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"max_tokens": 100, "messages": question, **GREEDY}
    shown = httpx.post(parley.url + "/v1/messages/think", json=body, timeout=60).json()
    clean = httpx.post(parley.url + "/v1/messages/clean", json=body, timeout=60).json()
    assert [block["type"] for block in shown["content"]] == ["thinking", "text"]
    assert [block["type"] for block in clean["content"]] == ["text"]
    assert "think>" not in str(shown["content"]) + str(clean["content"])


def test_refusals_are_the_vendors_exceptions(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**asking("Hello!") | {"model": "claude-9"})
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(**asking("word " * 9_000))
