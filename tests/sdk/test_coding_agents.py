"""Codex and Claude Code, by the requests that they really send, turn after turn."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.e2e.parley import Parley
from tests.sdk.agents import (
    CLAUDE_HEADERS,
    CODEX_HEADERS,
    PATCH_TOOL,
    Wire,
    claude,
    codex,
    said,
    text_block,
)

pytestmark = [pytest.mark.sdk, pytest.mark.model]
LEFT_OUT = "x-tools-left-out"


def respond(parley: Parley, body: Wire) -> Wire:
    """The response at the end of the stream; all calls told in pieces add up to it."""
    reply = parley.client.post(f"{parley.url}/v1/responses", json=body, headers=CODEX_HEADERS)
    assert reply.status_code == 200, reply.text
    assert reply.headers[LEFT_OUT] == "web_search"
    lines = [line for line in reply.text.split("\n") if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    last: Wire = events[-1]["response"]
    assert done == last["output"]
    return last


def message(parley: Parley, body: Wire) -> tuple[list[Wire], Wire]:
    """The blocks of a streamed message, and its usage at the end."""
    reply = parley.client.post(
        f"{parley.url}/v1/messages?beta=true", json=body, headers=CLAUDE_HEADERS
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers[LEFT_OUT] == "web_search_20250305"
    lines = [line for line in reply.text.split("\n") if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    usage = events[-2]["usage"]  # only there is known what was found in the cache
    return blocks_of(events), usage


def is_cut(events: list[Wire]) -> bool:
    return any(event.get("delta", {}).get("stop_reason") == "max_tokens" for event in events)


def blocks_of(events: list[Wire]) -> list[Wire]:
    """As the vendor's client puts them together."""
    blocks: list[Wire] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]) | {"json": ""})
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            key = {"input_json_delta": "json"}.get(delta["type"], delta["type"].split("_")[0])
            value = delta.get("partial_json", delta.get(key))
            blocks[event["index"]][key] = blocks[event["index"]].get(key, "") + value
    for block in blocks:
        written = block.pop("json")
        if block["type"] == "tool_use" and not is_cut(events):
            block["input"] = json.loads(written)
    return blocks


def test_a_session_of_codex(parley: Parley) -> None:
    question = said("user", "Say hello.")
    first = respond(parley, codex([question], max_output_tokens=40))
    assert first["output"]
    assert first["store"] is False
    # The second turn: what came back, a call of each kind, and what they returned.
    calls = [
        {"type": "function_call", "call_id": "c1", "name": "exec_command", "arguments": "{}"},
        {
            "type": "function_call",
            "call_id": "c2",
            "namespace": "multi_agent_v1",
            "name": "close_agent",
            "arguments": '{"target": "x"}',
        },
        {"type": "custom_tool_call", "call_id": "c3", "name": "apply_patch", "input": "*** Begin"},
    ]
    outputs: list[Wire] = [
        {"type": "function_call_output", "call_id": "c1", "output": "hello.py"},
        {"type": "function_call_output", "call_id": "c2", "output": "gone"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c3",
            "output": [{"type": "input_text", "text": "no patch"}],
        },
    ]
    again = [question, *first["output"], *calls, *outputs, said("user", "Go on.")]
    second = respond(parley, codex(again, max_output_tokens=40))
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    read = second["usage"]["input_tokens_details"]["cached_tokens"]
    assert read > 0.9 * first["usage"]["input_tokens"]


def test_codex_gets_a_patch_in_its_grammar(parley: Parley) -> None:
    body = codex(
        [said("user", "Add hello.py.")], tool_choice={"type": "custom", "name": "apply_patch"}
    )
    (item,) = respond(parley, body)["output"]
    assert (item["type"], item["name"]) == ("custom_tool_call", PATCH_TOOL["name"])
    assert re.fullmatch(
        r'\*\*\* Begin Patch\n\*\*\* Add File: [a-z]{1,8}\.py\n\+[a-z"() ]{0,12}\n'
        r"\*\*\* End Patch\n?",
        item["input"],
    ), item["input"]


def test_a_chat_gets_a_patch_in_its_grammar_too(parley: Parley) -> None:
    custom = {
        "name": "answer",
        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": '"[a-z]+"\\n'}},
    }
    reply = parley.chat(
        "Answer!",
        tools=[{"type": "custom", "custom": custom}],
        tool_choice={"type": "custom", "custom": {"name": "answer"}},
        max_tokens=200,
        logit_bias={},
    ).json()
    (call,) = reply["choices"][0]["message"]["tool_calls"]
    if reply["choices"][0]["finish_reason"] != "length":
        assert re.fullmatch(r'"[a-z]+"\n', call["custom"]["input"]), call


def test_a_session_of_claude_code(parley: Parley) -> None:
    assert parley.client.head(parley.url).status_code == 200
    first, usage = message(parley, claude([]))
    assert first
    total = usage["input_tokens"] + usage["cache_read_input_tokens"]
    # The second turn: its own number in the preamble, thoughts and a call sent back, its result.
    call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}
    thoughts = [block for block in first if block["type"] == "thinking"]
    content: list[Any] = [*thoughts, text_block("Hello."), call]
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [text_block("hello.py")],
        "is_error": False,
        "cache_control": {"type": "ephemeral"},
    }
    again = [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    _, usage = message(parley, claude(again, billing="2d1"))
    assert usage["cache_read_input_tokens"] > 0.9 * total


def test_claude_code_counts_the_tokens_that_it_is_then_told(parley: Parley) -> None:
    body = claude([])
    counted = {
        name: body[name] for name in ("model", "messages", "system", "tools", "thinking")
    } | {"output_config": body["output_config"]}
    reply = parley.client.post(
        f"{parley.url}/v1/messages/count_tokens?beta=true", json=counted, headers=CLAUDE_HEADERS
    )
    assert reply.status_code == 200, reply.text
    _, usage = message(parley, body)
    total = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert reply.json()["input_tokens"] == total


def test_claude_codes_search_is_refused_by_name(parley: Parley) -> None:
    """It asks for it in a request of its own, which would be answered without having searched."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    body = claude([], tools=[search], tool_choice={"type": "tool", "name": "web_search"})
    reply = parley.client.post(f"{parley.url}/v1/messages", json=body, headers=CLAUDE_HEADERS)
    assert reply.status_code == 400
    assert "tools[0].type is 'web_search_20250305'" in reply.json()["error"]["message"]
