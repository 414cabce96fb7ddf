"""What clients may ask an answer to look like, in each dialect's words, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from service.domain.constraint import Constraint, ConstraintKind
from tests.fakes.engine import FakeEngine

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
CAT = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"


def schema(value: object) -> Constraint:
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(value))


@pytest.mark.parametrize(
    ("body", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": None, "grammar": None, "json_schema": None}, None),
        ({"response_format": {"type": "json_object"}}, schema({"type": "object"})),
        ({"response_format": {"type": "json_object", "schema": CAT}}, schema(CAT)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "c", "schema": CAT},
                }
            },
            schema(CAT),
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "c", "strict": True, "schema": CAT},
                }
            },
            schema(CAT),
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "c"}}},
            schema({"type": "object"}),
        ),
        ({"json_schema": CAT}, schema(CAT)),
        ({"guided_json": json.dumps(CAT)}, schema(CAT)),
        ({"grammar": 'root ::= "a"'}, Constraint(ConstraintKind.GBNF, 'root ::= "a"')),
        ({"guided_regex": "[0-9]+"}, Constraint(ConstraintKind.REGEX, "[0-9]+")),
        ({"guided_choice": ["a", "b"]}, Constraint(ConstraintKind.CHOICE, '["a", "b"]')),
    ],
)
async def test_openais_clients_can_hold_an_answer_to_a_form(
    client: httpx.AsyncClient, engine: FakeEngine, body: Any, constraint: Constraint | None
) -> None:
    reply = await client.post(OPENAI, json={**HELLO, **body})
    assert reply.status_code == 200
    assert engine.jobs[-1].constraint == constraint


@pytest.mark.parametrize(
    ("body", "param", "sentence"),
    [
        (
            {"response_format": {"type": "xml"}},
            "response_format.type",
            "'json_schema' are supported",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "response_format.json_schema is missing",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": CAT}}},
            "response_format.json_schema.name",
            "name",
        ),
        (
            {"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'},
            "grammar",
            "response_format and grammar both say what the answer is to look like",
        ),
        ({"grammar": "x" * 300_000}, None, "the gbnf has 300000 bytes; at most 262144"),
        ({"guided_choice": [5]}, "guided_choice[0]", "valid string"),
    ],
)
async def test_what_openais_clients_cannot_ask_for_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, body: Any, param: str | None, sentence: str
) -> None:
    reply = await client.post(OPENAI, json={**HELLO, **body})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert sentence in error["message"]
    assert error["param"] == param
    assert engine.jobs == []


@pytest.mark.parametrize("place", ["output_config", "output_format"])
async def test_anthropics_clients_can_hold_an_answer_to_a_schema(
    client: httpx.AsyncClient, engine: FakeEngine, place: str
) -> None:
    form: dict[str, Any] = {"type": "json_schema", "schema": CAT}
    asked = {place: {"format": form} if place == "output_config" else form}
    reply = await client.post(ANTHROPIC, json={**HELLO, "max_tokens": 9, **asked})
    assert reply.status_code == 200
    assert engine.jobs[-1].constraint == schema(CAT)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"type": "json_schema"}, "output_config.format.schema is missing."),
        ({"type": "xml", "schema": {}}, "output_config.format.type is 'xml'; only 'json_schema'"),
    ],
)
async def test_what_anthropics_clients_cannot_ask_for_is_refused_by_name(
    client: httpx.AsyncClient, form: Any, sentence: str
) -> None:
    body = {**HELLO, "max_tokens": 9, "output_config": {"format": form}}
    reply = await client.post(ANTHROPIC, json=body)
    assert reply.status_code == 400
    assert sentence in reply.json()["error"]["message"]
