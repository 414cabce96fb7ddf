"""OpenAI's own client speaks Responses with the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.e2e.parley import Parley, running_parley

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


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    with running_parley(tmp_path_factory.mktemp("responses"), "--model", "pocket") as running:
        running.wait_healthy()
        yield running


@pytest.fixture
def client(parley: Parley) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{parley.url}/v1", api_key="none", max_retries=0) as made:
        yield made


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
        ({"input": [{"type": "web_search_call"}]}, r"input\[0\]\.type is 'web_search_call'"),
        ({"input": [{"role": "robot", "content": "x"}]}, r"input\[0\]\.role is 'robot'"),
        ({"background": True}, "background is not supported"),
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
