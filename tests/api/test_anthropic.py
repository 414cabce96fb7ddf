"""Anthropic's vocabulary: what it reads into a request, and what it says back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.dialects.anthropic.replies import Reply, to_usage
from service.api.dialects.anthropic.schemas import MessagesBody
from service.api.dialects.anthropic.translate import to_chat_request
from service.domain.chat import (
    ChatRequest,
    Message,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
)
from service.domain.errors import EngineUnavailable, GenerationFailed, QueueFull
from service.domain.events import Finished, FinishReason, Usage
from service.settings import ApiSettings
from tests.api.running import listening, running_app
from tests.fakes.engine import FAKE_MODEL, FakeEngine, loading

FULL = "model_context_window_exceeded"
VENDOR = {"anthropic-version": "2023-06-01"}
HELLO: dict[str, Any] = {"max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}}


def request_of(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    body = MessagesBody.model_validate({"max_tokens": 64, "messages": messages, **fields})
    return to_chat_request(body, "r1")


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def events_of(stream: str) -> list[tuple[str, dict[str, Any]]]:
    """The named events of a stream; each name must be the type of its data."""
    frames = [frame.split("\n") for frame in stream.split("\n\n") if not frame.startswith(":")]
    events = [(f[0].removeprefix("event: "), json.loads(f[1][6:])) for f in frames if f != [""]]
    assert all(name == data["type"] for name, data in events)
    return events


def test_a_result_follows_its_call_whatever_was_said_before_it() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 degrees"}
    request = request_of(
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [text("I look."), CALL]},
        user(text("Quickly.")),
        user(result, text("In Celsius.")),
    )
    assert request.messages == (
        Message(Role.USER, "Weather?"),
        Message(
            Role.ASSISTANT,
            "I look.",
            tool_calls=(ToolCall("toolu_1", "get_weather", '{"city": "Rome"}'),),
        ),
        Message(Role.TOOL, "18 degrees", tool_call_id="toolu_1"),
        Message(Role.USER, "Quickly.\n\nIn Celsius."),
    )


def test_several_results_stay_apart_and_a_failed_one_says_so() -> None:
    failed = {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": [text("No.")]}
    empty = {"type": "tool_result", "tool_use_id": "a", "content": None}
    calls = [CALL | {"id": "a"}, CALL | {"id": "b", "input": None}]
    request = request_of(
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": calls},
        user(empty, failed),
    )
    assert request.messages[1].tool_calls[1].arguments == "{}"
    assert request.messages[2:] == (
        Message(Role.TOOL, "", tool_call_id="a"),
        Message(Role.TOOL, "Error: No.", tool_call_id="b"),
    )


def test_thoughts_come_back_as_thoughts() -> None:
    thought = {"type": "thinking", "thinking": "France, so", "signature": "unsigned"}
    secret = {"type": "redacted_thinking", "data": "x"}
    request = request_of(
        {"role": "user", "content": "Capital?"},
        {"role": "assistant", "content": [thought, secret, text("Paris.")]},
        {"role": "user", "content": "Sure?"},
    )
    assert request.messages[1] == Message(Role.ASSISTANT, "Paris.", reasoning="France, so")


def test_system_text_may_be_said_anywhere() -> None:
    request = request_of(
        {"role": "user", "content": "One."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two."},
        system=[text("You are"), text("a poet.")],
    )
    roles = [(message.role.value, message.content) for message in request.messages]
    assert roles == [
        ("system", "You are\n\na poet."),
        ("user", "One."),
        ("system", "Be brief."),
        ("user", "Two."),
    ]


def test_blocks_of_unknown_types_are_ignored_whatever_is_in_them() -> None:
    strange = {"type": "web_fetch_tool_result", "content": {"a": 1}, "text": 5, "id": []}
    request = request_of(user(strange, text("Hello")))
    assert request.messages == (Message(Role.USER, "Hello"),)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (None, None),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive", "display": None}, True),
        ({"type": "disabled"}, False),
        ({"type": "between_tools"}, False),
    ],
)
def test_thinking_is_what_the_client_says(
    thinking: dict[str, Any] | None, expected: bool | None
) -> None:
    assert request_of({"role": "user", "content": "a"}, thinking=thinking).thinking is expected


def test_thinking_between_tools_is_thinking_about_what_they_answered() -> None:
    question: dict[str, Any] = {"role": "user", "content": "Weather?"}
    call: dict[str, Any] = {"role": "assistant", "content": [CALL]}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 degrees"}
    between = {"type": "between_tools"}
    assert request_of(question, thinking=between).thinking is False
    assert request_of(question, call, user(result), thinking=between).thinking is True


def test_budget_and_effort_are_those_of_the_client() -> None:
    request = request_of(
        {"role": "user", "content": "a"},
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "low"},
    )
    assert (request.reasoning_budget, request.reasoning_effort) == (1024, "low")


def test_tools_and_the_choice_between_them_are_those_of_the_client() -> None:
    request = request_of(
        {"role": "user", "content": "a"},
        tools=[{"name": "look", "description": "Look.", "input_schema": {"type": "object"}}],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
    )
    assert request.tools == (Tool("look", "Look.", '{"type": "object"}'),)
    assert request.tool_choice == ToolChoice(ToolMode.REQUIRED, ("look",))
    assert not request.parallel_tool_calls


BILLING = "x-anthropic-billing-header: cc_version=2.1.37.3a3; cc_entrypoint=cli; cch={};"


@pytest.mark.parametrize(
    "system",
    [
        BILLING + "\nBe brief.",
        BILLING + " Be brief.",
        "\n" + BILLING + "\n\nBe brief.",
        [text(BILLING), text("Be brief.")],
        "Be brief.",
    ],
)
def test_a_billing_preamble_does_not_reach_the_prompt(system: Any) -> None:
    told = json.loads(json.dumps(system).replace("{}", "5f3a"))
    request = request_of({"role": "user", "content": "a"}, system=told)
    assert request.messages[0] == Message(Role.SYSTEM, "Be brief.")


def test_only_the_head_of_the_system_text_is_a_preamble() -> None:
    system = "Explain x-anthropic-billing-header: cch=1; please."
    request = request_of({"role": "user", "content": "a"}, system=system)
    assert request.messages[0].content == system


async def test_requests_that_differ_in_their_billing_have_the_same_prompt(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    for number in ("5f3a", "00c1"):
        system = BILLING.format(number) + "\nBe brief."
        await client.post("/v1/messages", json={**HELLO, "system": system})
    assert engine.jobs[0].prompt == engine.jobs[1].prompt


async def test_sampling_reaches_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    options = {"temperature": 0.3, "top_k": 7, "top_p": 0.5, "stop_sequences": ["END"]}
    reply = await client.post("/v1/messages", json={**HELLO, **options})
    assert reply.status_code == 200, reply.text
    job = engine.jobs[0]
    assert (job.sampling.temperature, job.sampling.top_k, job.sampling.top_p) == (0.3, 7, 0.5)
    assert (job.max_tokens, job.stop[0]) == (64, "END")


@pytest.mark.parametrize(
    "body",
    [
        HELLO,
        {**HELLO, "system": "Be brief.", "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"max_tokens": 9, "messages": [user(text("a"), text("b")), user(text("c"))]},
    ],
)
async def test_counted_tokens_are_those_of_the_real_call(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    usage = (await client.post("/v1/messages", json=body)).json()["usage"]
    counted = (await client.post("/v1/messages/count_tokens", json=body)).json()
    real = sum(number for name, number in usage.items() if name != "output_tokens")
    assert counted == {"input_tokens": real}


async def test_tokens_of_a_history_that_ends_with_an_answer_can_be_counted(
    client: httpx.AsyncClient,
) -> None:
    turns = [*HELLO["messages"], {"role": "assistant", "content": "Hi."}]
    reply = await client.post("/v1/messages/count_tokens", json={"messages": turns})
    assert reply.status_code == 200


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/clean", "/v1/messages/think"])
async def test_a_stream_adds_up_to_the_plain_answer(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    said = "<think>One,\n\ntwo 🤔</think>Three \u2028 日本語 \u0085 [DONE]\n\nfour."
    engine.answers(said, said)
    plain = (await client.post(path, json=HELLO)).json()
    events = events_of((await client.post(path, json={**HELLO, "stream": True})).text)
    blocks: list[dict[str, Any]] = []
    for _, data in events:
        if data["type"] == "content_block_start":
            assert data["index"] == len(blocks)
            blocks.append(dict(data["content_block"]))
        elif data["type"] == "content_block_delta":
            assert data["index"] == len(blocks) - 1
            for key, piece in data["delta"].items():
                if key != "type":
                    blocks[-1][key] += piece
    assert blocks == plain["content"]
    assert [block["type"] for block in blocks] == (["thinking"] * path.endswith("think") + ["text"])
    names = [name for name, _ in events]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    last = events[-2][1]
    assert last["usage"] == plain["usage"]
    assert last["delta"]["stop_reason"] == plain["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (Finished(FinishReason.STOP), "end_turn", None),
        (Finished(FinishReason.STOP, stop_sequence="END"), "stop_sequence", "END"),
        (Finished(FinishReason.LENGTH, Usage(completion_tokens=64)), "max_tokens", None),
        (Finished(FinishReason.LENGTH, Usage(449, completion_tokens=63)), FULL, None),
        # The operator's limit, or the token's: the vendor has no word of its own for them.
        (Finished(FinishReason.LENGTH, Usage(9, completion_tokens=63)), "max_tokens", None),
        (Finished(FinishReason.SHUTDOWN), "max_tokens", None),
    ],
)
def test_why_an_answer_stopped(finished: Finished, reason: str, sequence: str | None) -> None:
    stop = Reply(FAKE_MODEL, max_tokens=64).stop(finished)
    assert stop == {"stop_reason": reason, "stop_sequence": sequence}


def test_cached_tokens_are_not_counted_twice() -> None:
    usage = to_usage(Usage(prompt_tokens=100, cached_tokens=90, completion_tokens=5))
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (10, 90)
    assert (usage["cache_creation_input_tokens"], usage["output_tokens"]) == (0, 5)


async def test_silence_is_filled_with_pings(engine: FakeEngine, tmp_path: Path) -> None:
    engine.paced = True
    api = ApiSettings(keepalive_comment_seconds=0.05)
    body = {**HELLO, "stream": True}
    async with (
        running_app(engine, tmp_path, api) as app,
        listening(app) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        client.stream("POST", "/v1/messages", json=body) as reply,
    ):
        seen = ""
        async for piece in reply.aiter_text():
            seen += piece
            if seen.count("event: ping\n") >= 3:
                await engine.write(3)
    assert [name for name, _ in events_of(seen)][1:4] == ["ping", "ping", "ping"]
    assert seen.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (QueueFull("64 requests are waiting.", retry_after_seconds=3), 529, "overloaded_error"),
        (EngineUnavailable("It loads.", retry_after_seconds=3), 503, "api_error"),
        (GenerationFailed("It broke."), 500, "api_error"),
    ],
)
async def test_what_the_engine_refuses_has_the_vendors_status(
    client: httpx.AsyncClient, engine: FakeEngine, error: Any, status: int, kind: str
) -> None:
    engine.refuses(error)
    if isinstance(error, EngineUnavailable):
        engine.refuses(error)
    reply = await client.post("/v1/messages", json=HELLO)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, kind)
    assert reply.headers.get("retry-after") == (None if status == 500 else "3")


async def test_an_engine_that_dies_mid_stream_is_an_error_event(
    address: str, engine: FakeEngine
) -> None:
    engine.paced = True
    body = {**HELLO, "stream": True}
    headers = {"x-request-id": "abc"}
    async with (
        httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client,
        client.stream("POST", "/v1/messages", json=body) as reply,
    ):
        seen = ""
        async for piece in reply.aiter_text():
            seen += piece
            if engine.running:
                await engine.write(1)
                engine.dies()
    name, data = events_of(seen)[-1]
    assert (name, data["error"]["type"], data["request_id"]) == ("error", "api_error", "abc")
    assert "message_stop" not in seen


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/messages/count_tokens", 405, "invalid_request_error"),
        ("POST", "/v1/messages/nothing", 404, "not_found_error"),
        ("GET", "/v1/messages/batches", 404, "not_found_error"),
    ],
)
async def test_the_frameworks_refusals_are_in_the_envelope(
    client: httpx.AsyncClient, method: str, path: str, status: int, kind: str
) -> None:
    reply = await client.request(method, path, headers={"x-request-id": "abc"})
    body = reply.json()
    assert (reply.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert (reply.headers["request-id"], body["request_id"]) == ("abc", "abc")


async def test_models_are_in_the_shape_of_who_asks(client: httpx.AsyncClient) -> None:
    page = (await client.get("/v1/models?limit=20", headers=VENDOR)).json()
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "fake", "fake")
    model = (await client.get("/v1/models/fake", headers=VENDOR)).json()
    assert page["data"] == [model]
    assert (model["type"], model["created_at"]) == ("model", "2023-11-14T22:13:20Z")
    assert (await client.get("/v1/models")).json()["object"] == "list"
    assert (await client.get("/v1/models/fake")).json()["object"] == "model"


async def test_an_unknown_model_is_in_the_words_of_who_asks(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v1/models/acme/large", headers=VENDOR)
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")
    reply = await client.get("/v1/models/acme/large")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


async def test_there_may_be_no_model_yet(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.status = loading(0.5)
    page = (await client.get("/v1/models", headers=VENDOR)).json()
    assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert (await client.get("/v1/models/fake", headers=VENDOR)).status_code == 404


async def test_headers_and_queries_of_the_vendors_clients_are_accepted(
    client: httpx.AsyncClient,
) -> None:
    headers = VENDOR | {"x-api-key": "sk-ant-x", "anthropic-beta": "a-2025-01-01,b"}
    reply = await client.post("/v1/messages?beta=true", json=HELLO, headers=headers)
    assert reply.status_code == 200
    bearer = VENDOR | {"Authorization": "Bearer x"}
    assert (await client.post("/v1/messages", json=HELLO, headers=bearer)).status_code == 200
