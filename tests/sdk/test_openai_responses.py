"""OpenAI's own client speaks Responses with the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.e2e.parley import Parley, running_parley
from tests.faults.streams import MANY_TEXTS
from tests.sdk.published import Published

pytestmark = [pytest.mark.sdk, pytest.mark.model]

WEATHER: openai.types.responses.FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def test_a_response_is_kept_gone_on_from_and_forgotten(client: OpenAI) -> None:
    first = client.responses.create(
        model="pocket", input="What is the capital of France?", temperature=0
    )
    assert first.status == "completed"
    assert "Paris" in first.output_text
    assert first.usage is not None
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
    second = client.responses.create(
        model="pocket", input="Thank you!", previous_response_id=first.id, temperature=0
    )
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    (item,) = client.responses.input_items.list(second.id).data
    assert item.type == "message"
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError, match="There is no response"):
        client.responses.retrieve(second.id)


def test_a_streamed_response_is_the_same_as_one_at_once(client: OpenAI) -> None:
    with client.responses.stream(model="pocket", input="Hello!", temperature=0) as stream:
        kinds, text = [], ""
        for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
        final = stream.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert text == final.output_text
    at_once = client.responses.create(model="pocket", input="Hello!", temperature=0)
    assert at_once.output_text == text


def test_every_event_has_its_number(client: OpenAI) -> None:
    stream = client.responses.create(model="pocket", input="Hello!", stream=True)
    numbers = [event.sequence_number for event in stream]
    assert numbers == list(range(len(numbers)))


def test_a_tool_is_called_and_its_result_is_used(client: OpenAI) -> None:
    asked = client.responses.create(
        model="pocket",
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
    )
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")
    answered = client.responses.create(
        model="pocket",
        previous_response_id=asked.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        tools=[WEATHER],
        tool_choice="none",
    )
    assert answered.output[-1].type == "message"


def test_a_streamed_call_comes_in_pieces_that_add_up(client: OpenAI) -> None:
    pieces, whole = "", ""
    stream = client.responses.create(
        model="pocket",
        input="What is the weather in Rome?",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        stream=True,
    )
    for event in stream:
        if event.type == "response.function_call_arguments.delta":
            pieces += event.delta
        elif event.type == "response.function_call_arguments.done":
            whole = event.arguments
    assert pieces == whole
    assert json.loads(whole)["city"] in ("Paris", "Rome")


def test_an_answer_is_parsed_into_a_model_of_the_caller_s(client: OpenAI) -> None:
    class City(BaseModel):
        name: str
        large: bool

    parsed = client.responses.parse(
        model="pocket", input="Name a city.", text_format=City, max_output_tokens=200
    )
    assert parsed.status in ("completed", "incomplete")
    if parsed.status == "completed":
        assert isinstance(parsed.output_parsed, City)


def test_an_answer_that_is_cut_says_so(client: OpenAI) -> None:
    cut = client.responses.create(model="pocket", input="Tell me a story.", max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


LONG: dict[str, Any] = {
    "model": "pocket",
    "input": "Tell me a story about a dog.",
    "temperature": 0,
}
ENDLESS: dict[str, Any] = {
    **LONG,
    "max_output_tokens": 1900,
    "text": MANY_TEXTS,
}


def strangers(parley: Parley, number: int) -> Iterator[OpenAI]:
    """Clients on connections of their own: whichever worker is free takes each."""
    for _ in range(number):
        with OpenAI(base_url=f"{parley.url}/v1", api_key="none", max_retries=0) as made:
            yield made


def test_an_answer_in_the_background_is_polled_for_and_followed_from_any_worker(
    client: OpenAI, parley: Parley, published: Published
) -> None:
    begun = client.responses.create(**LONG, background=True, max_output_tokens=200)
    published.check("Response", begun.to_dict())
    assert (begun.status, begun.background) == ("queued", True)
    told: list[list[Any]] = [
        list(one.responses.retrieve(begun.id, stream=True)) for one in strangers(parley, 6)
    ]
    for events in told:
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events == told[0]
        for event in events:
            published.check("ResponseStreamEvent", event.to_dict())
    for polling in strangers(parley, 4):
        ended = polling.responses.retrieve(begun.id)
        published.check("Response", ended.to_dict())
        assert ended.status in ("completed", "incomplete")
        assert ended.output_text == told[0][-1].response.output_text


def test_a_stream_that_was_left_is_gone_on_with_wherever_it_lands(
    client: OpenAI, parley: Parley
) -> None:
    stream = client.responses.create(**LONG, background=True, stream=True, max_output_tokens=200)
    seen = [next(stream) for _ in range(8)]
    stream.close()
    first = seen[0]
    assert first.type == "response.created"
    for one in strangers(parley, 6):
        after = seen[-1].sequence_number
        rest = list(one.responses.retrieve(first.response.id, stream=True, starting_after=after))
        events = [*seen, *rest]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        last = events[-1]
        assert last.type in ("response.completed", "response.incomplete")
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        assert "".join(deltas) == last.response.output_text


def test_an_answer_is_cancelled_from_any_worker(client: OpenAI, parley: Parley) -> None:
    for other in strangers(parley, 4):
        begun = client.responses.create(**ENDLESS, background=True)
        assert other.responses.cancel(begun.id).status == "cancelled"
        assert client.responses.retrieve(begun.id).status == "cancelled"
        *_, last = client.responses.retrieve(begun.id, stream=True)
        assert last.type == "response.incomplete"
    made = client.responses.create(model="pocket", input="Hi", max_output_tokens=5)
    with pytest.raises(openai.BadRequestError, match="is not in the background"):
        client.responses.cancel(made.id)


def test_a_conversation_takes_in_what_was_asked_and_answered(
    client: OpenAI, published: Published
) -> None:
    made = client.conversations.create(metadata={"topic": "names"})
    published.check("ConversationResource", made.to_dict())
    said = client.responses.create(
        model="pocket", input="My name is Alice.", conversation=made.id, temperature=0
    )
    assert said.conversation is not None
    assert said.conversation.id == made.id
    asked = client.responses.create(
        model="pocket", input="What is my name?", conversation={"id": made.id}, temperature=0
    )
    assert "Alice" in asked.output_text
    items: list[Any] = list(client.conversations.items.list(made.id, order="asc", limit=1))
    for item in items:
        published.check("ConversationItem", item.to_dict())
    texts = [part.text for item in items for part in item.content]
    assert texts == ["My name is Alice.", said.output_text, "What is my name?", asked.output_text]
    client.conversations.delete(made.id)
    with pytest.raises(openai.NotFoundError, match="There is no conversation"):
        client.responses.create(model="pocket", input="And?", conversation=made.id)


def test_log_probabilities_are_told_of_the_text(client: OpenAI) -> None:
    with client.responses.stream(
        model="pocket",
        input="Hello!",
        temperature=0,
        top_logprobs=3,
        include=["message.output_text.logprobs"],
    ) as stream:
        told = [e for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    whole: Any = final.to_dict()
    part = whole["output"][0]["content"][0]
    assert "".join(entry["token"] for entry in part["logprobs"]) == final.output_text
    assert [entry.token for event in told for entry in event.logprobs] == [
        entry["token"] for entry in part["logprobs"]
    ]
    assert all(len(entry["top_logprobs"]) == 3 for entry in part["logprobs"])


def test_thoughts_are_counted_as_the_engine_s_tokens(client: OpenAI, parley: Parley) -> None:
    made = client.responses.create(
        model="pocket", input="How much is 2 and 3?", temperature=0, reasoning={"effort": "high"}
    )
    thought, message = made.output
    assert thought.type == "reasoning"
    assert message.type == "message"
    assert made.usage is not None
    counted = made.usage.output_tokens_details.reasoning_tokens
    answer = message.content[0]
    assert answer.type == "output_text"
    # What is behind the thought are line ends, the answer and the token that ends it.
    behind = num_tokens(parley, f"\n\n{answer.text}") + 1
    assert counted == made.usage.output_tokens - behind


def num_tokens(parley: Parley, text: str) -> int:
    reply = httpx.post(f"{parley.url}/tokenize", json={"content": text}, timeout=60)
    return len(reply.json()["tokens"])


def test_what_is_kept_outlives_the_service_and_what_was_begun_fails(tmp_path: Path) -> None:
    arguments = ("--model", "pocket", "--workers", "2")
    with running_parley(tmp_path, *arguments) as parley:
        parley.wait_healthy()
        client = OpenAI(base_url=f"{parley.url}/v1", api_key="none", max_retries=0)
        first = client.responses.create(model="pocket", input="My name is Alice.", temperature=0)
        begun = client.responses.create(**ENDLESS, background=True)
        client.close()
        parley.process.kill()
        parley.process.wait()
    with running_parley(tmp_path, *arguments) as parley:
        parley.wait_healthy()
        for client in strangers(parley, 1):
            second = client.responses.create(
                model="pocket",
                input="What is my name?",
                previous_response_id=first.id,
                temperature=0,
            )
            assert "Alice" in second.output_text
            *_, last = client.responses.retrieve(begun.id, stream=True)
            assert last.type == "response.failed"
            failed = client.responses.retrieve(begun.id)
            assert failed.status == "failed"
            assert failed.error is not None
            assert "stopped before" in failed.error.message


def test_a_conversation_is_made_short_and_gone_on_with(client: OpenAI) -> None:
    said: Any = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
    ]
    short = client.responses.compact(model="pocket", input=said)
    assert short.object == "response.compaction"
    assert [item.type for item in short.output] == ["message", "compaction"]
    assert short.usage.output_tokens > 0
    again: Any = [item.model_dump(exclude_none=True, warnings=False) for item in short.output]
    again.append({"role": "user", "content": "Thank you!"})
    answer = client.responses.create(model="pocket", input=again, max_output_tokens=20)
    assert answer.usage is not None
    assert answer.usage.input_tokens > 20


def test_what_is_not_stored_cannot_be_gone_on_from(client: OpenAI) -> None:
    gone = client.responses.create(model="pocket", input="Hi", store=False, max_output_tokens=5)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="pocket", input="And?", previous_response_id=gone.id)


def test_tokens_are_counted_without_answering(client: OpenAI) -> None:
    counted = client.responses.input_tokens.count(model="pocket", input="Hello!")
    answered = client.responses.create(model="pocket", input="Hello!", max_output_tokens=1)
    assert answered.usage is not None
    assert counted.input_tokens == answered.usage.input_tokens


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": None}, "input is missing"),
        ({"input": [{"type": "computer_call"}]}, r"input\[0\]\.type is 'computer_call'"),
        ({"input": [{"role": "robot", "content": "x"}]}, r"input\[0\]\.role is 'robot'"),
        ({"background": True, "store": False}, "background is true and store is false"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt is not supported"),
        (
            {"conversation": "conv_1", "previous_response_id": "resp_1"},
            "conversation and previous_response_id are both set",
        ),
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\]\.type is 'web_search'"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema is missing"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort is 'huge'"),
        ({"truncation": "some"}, "truncation is 'some'"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    client: OpenAI, body: dict[str, object], named: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        client.post("/responses", body={"model": "pocket", "input": "Hi", **body}, cast_to=object)
