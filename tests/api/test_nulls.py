"""Null, at every place where a client may write it: an answer or a refusal, never a fault."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.api.dialects.anthropic.schemas import MessagesBody
from service.api.dialects.openai.schemas import ChatCompletionBody

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
OPENAI: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "a"},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "So", "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "a", "content": "18 degrees"},
        {"role": "user", "content": "And?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": CITY,
                "strict": False,
            },
        }
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "look"}}],
        },
    },
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "description": "b", "schema": CITY, "strict": True},
    },
    "stream_options": {"include_usage": True},
    "logit_bias": {"5": 1},
    "stop": ["a"],
    "chat_template_kwargs": {"enable_thinking": False},
}
ANTHROPIC: dict[str, Any] = {
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hello", "citations": []}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "So"},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "is_error": False,
                    "content": [{"type": "text", "text": "18 degrees"}],
                }
            ],
        },
    ],
    "tools": [
        {"type": "custom", "name": "look", "description": "b", "input_schema": CITY, "strict": True}
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 32, "display": "summarized"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": CITY}},
    "metadata": {"user_id": "a"},
    "stop_sequences": ["a"],
}
Place = tuple[str | int, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every place within a value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*place, key)
        yield from places(inner, (*place, key))


def without(body: dict[str, Any], place: Place) -> dict[str, Any]:
    """The body with null at that place."""
    changed = copy.deepcopy(body)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = None
    return changed


def may_be_null(schema: dict[str, Any], place: Place) -> bool:
    """Whether our own document says so."""
    definitions = schema.get("$defs", {})
    choices = [schema]
    for key in place:
        found: list[dict[str, Any]] = []
        for choice in _all_of(choices, definitions):
            if isinstance(key, int) and "items" in choice:
                found.append(choice["items"])
            elif key in choice.get("properties", {}):
                found.append(choice["properties"][key])
        choices = found
    return any(choice.get("type") == "null" for choice in _all_of(choices, definitions))


def _all_of(choices: list[dict[str, Any]], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """What the choices come down to."""
    found: list[dict[str, Any]] = []
    for choice in choices:
        if "$ref" in choice:
            found += _all_of([definitions[choice["$ref"].rpartition("/")[2]]], definitions)
        elif "anyOf" in choice:
            found += _all_of(choice["anyOf"], definitions)
        else:
            found.append(choice)
    return found


ROWS = [
    ("/v1/chat/completions", OPENAI, ChatCompletionBody.model_json_schema(), place)
    for place in places(OPENAI)
] + [("/v1/messages", ANTHROPIC, MessagesBody.model_json_schema(), p) for p in places(ANTHROPIC)]
# What is null for its own sake: a part without its text, a message without content, a result
# without its call; and a form that leaves open what it is.
MEANT = {"text", "content", "tool_call_id", "tool_use_id", "id", "name", "function", "json_schema"}
MEANT |= {"mode", "schema", "thinking"}
# And what a tool choice then has no tools to choose from for.
MEANT |= {"tools", "allowed_tools"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_the_whole_is_answered(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.post(path, json=OPENAI if path.endswith("completions") else ANTHROPIC)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("path", "body", "schema", "place"),
    ROWS,
    ids=[f"{row[0][4:]}: {'.'.join(map(str, row[3]))}" for row in ROWS],
)
async def test_null_is_absent_where_the_document_says_so_and_no_fault_elsewhere(
    client: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    schema: dict[str, Any],
    place: Place,
) -> None:
    reply = await client.post(path, json=without(body, place))
    assert reply.status_code in (200, 400), reply.text
    if may_be_null(schema, place) and place[-1] not in MEANT:
        assert reply.status_code == 200, reply.text
    assert (await client.post(path, json=body)).status_code == 200
