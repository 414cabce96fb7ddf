"""Vendors' clients get valid JSON from a running service with Pocket, which has no idea of it."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

import anthropic
import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.e2e.parley import Parley
from tests.questions import QUESTIONS

pytestmark = [pytest.mark.sdk, pytest.mark.model]


class Color(Enum):
    RED = "red"
    GREEN = "grün"
    BLUE = "青"


Words = Annotated[str, Field(max_length=30)]
"""Pocket may never end a text of its own accord."""

Count = Annotated[int, Field(ge=0, le=9999)]


class Place(BaseModel):
    city: Words = Field(description="Where it is.")
    population: Count


class Wheel(BaseModel):
    kind: Literal["wheel"]
    inches: Count


class Wing(BaseModel):
    kind: Literal["wing"]
    span: Count | None


class Thing(BaseModel):
    name: Words
    colors: list[Color] = Field(max_length=3)
    places: list[Place] = Field(max_length=2)
    parts: list[Wheel | Wing] = Field(max_length=3)
    size: Count | Words = Field(alias="größe")


class Step(BaseModel):
    explanation: Words
    output: Words


class Solution(BaseModel):
    steps: list[Step] = Field(max_length=4)
    final_answer: Words


@pytest.mark.parametrize("form", [Thing, Solution, Place])
def test_every_answer_is_parsed_into_a_model(client: openai.OpenAI, form: type[BaseModel]) -> None:
    for seed, question in enumerate(QUESTIONS[:6]):
        reply = client.chat.completions.parse(
            model="pocket",
            messages=[{"role": "user", "content": question}],
            response_format=form,
            seed=seed,
        )
        assert isinstance(reply.choices[0].message.parsed, form)


def test_a_stream_is_held_to_its_schema_too(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="pocket",
        messages=[{"role": "user", "content": "Where is Paris?"}],
        response_format=Place,
        seed=1,
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Place)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"é": {"enum": ["ja", "nein", 3]}}, "required": ["é"]},
    {
        "type": "array",
        "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        "maxItems": 3,
    },
    {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "string", "maxLength": 9}]},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_every_complete_answer_satisfies_its_schema(
    client: openai.OpenAI, schema: dict[str, Any]
) -> None:
    for seed, question in enumerate(QUESTIONS[:5]):
        reply = client.chat.completions.create(
            model="pocket",
            messages=[{"role": "user", "content": question}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "it", "schema": schema, "strict": True},
            },
            seed=seed,
            max_tokens=300,
        )
        choice = reply.choices[0]
        if choice.finish_reason == "stop":
            jsonschema.validate(json.loads(choice.message.content or ""), schema)


def test_any_object_will_do(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="pocket",
        messages=[{"role": "user", "content": "Say it in JSON."}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=400,
    )
    text = reply.choices[0].message.content or ""
    assert text.startswith("{")
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def test_an_unsupported_keyword_is_refused_before_anything_runs(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="uses uniqueItems, which is not supported"):
        client.chat.completions.create(
            model="pocket",
            messages=[{"role": "user", "content": "Hi"}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "it", "schema": {"type": "array", "uniqueItems": True}},
            },
            stream=True,
        )


def test_a_grammar_of_llama_cpp_is_understood(parley: Parley) -> None:
    reply = parley.chat("Which?", grammar='root ::= "left" | "right"', seed=3)
    assert reply.json()["choices"][0]["message"]["content"] in ("left", "right")


def test_anthropics_client_parses_its_own_kind(parley: Parley) -> None:
    with anthropic.Anthropic(base_url=parley.url, api_key="none", max_retries=0) as client:
        message = client.messages.parse(
            model="pocket",
            max_tokens=300,
            messages=[{"role": "user", "content": "Where is Paris?"}],
            output_format=Place,
        )
    assert isinstance(message.parsed_output, Place)


def test_what_is_held_to_a_grammar_is_counted(parley: Parley) -> None:
    parley.chat("Which?", guided_choice=["left", "right"])
    metrics = httpx.get(f"{parley.url}/metrics", timeout=60).text
    assert 'parley_constrained_requests_total{kind="choice"}' in metrics
