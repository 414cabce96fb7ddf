"""`functions`, as clients called tools before there were any."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.fakes.engine import FakeEngine

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
WEATHER = {
    "name": "get_weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Weather in Rome?"}],
    "functions": [WEATHER],
}


async def test_a_call_is_told_as_the_one_function_call(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers(CALL)
    reply = (await client.post("/v1/chat/completions", json=ASKED)).json()
    (choice,) = reply["choices"]
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]
    call = choice["message"]["function_call"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Rome"})
    assert choice["message"]["content"] is None


async def test_a_stream_says_the_name_once(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answers(CALL)
    reply = await client.post("/v1/chat/completions", json={**ASKED, "stream": True})
    frames = [json.loads(line[6:]) for line in reply.text.split("\n") if line.startswith("data: {")]
    deltas = [frame["choices"][0]["delta"] for frame in frames]
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert [call["name"] for call in calls if "name" in call] == ["get_weather"]
    assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "Rome"}
    assert frames[-1]["choices"][0]["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("choice", "called"), [("auto", True), ("none", False), ({"name": "get_weather"}, True)]
)
async def test_a_function_may_be_named_or_forbidden(
    client: httpx.AsyncClient, engine: FakeEngine, choice: Any, called: bool
) -> None:
    engine.answers('{"name": "get_weather", "arguments": {"city": "Rome"}}' if called else "No.")
    body = {**ASKED, "function_call": choice}
    if choice == "auto":
        engine.answers(CALL)
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    told = "".join(piece.text for piece in engine.jobs[0].prompt)
    assert ("get_weather" in told) is called


async def test_calls_and_answers_in_the_history_belong_together(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    history = [
        *ASKED["messages"],
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
        },
        {"role": "function", "name": "get_weather", "content": "18 degrees"},
    ]
    reply = await client.post("/v1/chat/completions", json={**ASKED, "messages": history})
    assert reply.status_code == 200, reply.text
    told = "".join(piece.text for piece in engine.jobs[0].prompt)
    assert told.index('"Rome"') < told.index("18 degrees")


WRONG = [
    ({"function_call": "always"}, "function_call", "function_call is 'always'; it must be"),
    ({"function_call": {"name": "b"}}, "function_call", "'b', which is not among the functions."),
    ({"functions": None, "function_call": "auto"}, "function_call", "there are none."),
    ({"tools": [{"type": "function", "function": WEATHER}]}, "functions", "send one of them."),
    (
        {"messages": [{"role": "function", "content": "18 degrees"}]},
        *("messages[0].name", "messages[0].name is missing."),
    ),
]


@pytest.mark.parametrize(("changes", "param", "sentence"), WRONG, ids=[row[2] for row in WRONG])
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, changes: dict[str, Any], param: str, sentence: str
) -> None:
    reply = await client.post("/v1/chat/completions", json={**ASKED, **changes})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["param"], sentence in error["message"]) == (param, True), error
