"""Custom tools, which take text, in OpenAI's two dialects; namespaces; and hosted tools."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from service.api.custom_tools import InputReader, to_arguments, to_input
from service.domain.constraint import ConstraintKind
from service.ipc.messages import Submit
from tests.fakes.engine import FakeEngine

TEXT = '*** Begin\n+print("hi\\n")\té😀\n*** End'
PATCH = {"name": "apply_patch", "description": "Changes files."}
GRAMMAR = {"definition": 'start: "a" /.+/', "syntax": "lark"}
FUNCTION = {"type": "function", "name": "run", "parameters": {"type": "object"}}
LEFT_OUT = "x-tools-left-out"


def called(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def responses(**body: Any) -> dict[str, Any]:
    return {"input": "Change it.", "tools": [{"type": "custom", **PATCH}], **body}


def chat(**body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Change it."}]
    return {"messages": messages, "tools": [{"type": "custom", "custom": PATCH}], **body}


def frames_of(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    lines = [line for line in reply.text.split("\n") if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def prompt_of(job: Submit) -> str:
    return "".join(piece.text for piece in job.prompt)


async def test_a_response_calls_with_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answers(called("apply_patch", input=TEXT))
    reply = await client.post("/v1/responses", json=responses())
    (item,) = reply.json()["output"]
    assert item["type"] == "custom_tool_call"
    assert (item["name"], item["input"], item["status"]) == ("apply_patch", TEXT, "completed")
    assert item["id"].startswith("ctc_")
    assert reply.json()["tools"] == [{"type": "custom", **PATCH}]


async def test_a_streamed_response_tells_the_text_piece_by_piece(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers(called("apply_patch", input=TEXT))
    events = frames_of(await client.post("/v1/responses", json=responses(stream=True)))
    kind = "response.custom_tool_call_input"
    deltas = [event["delta"] for event in events if event["type"] == f"{kind}.delta"]
    (done,) = [event for event in events if event["type"] == f"{kind}.done"]
    (item,) = events[-1]["response"]["output"]
    assert "".join(deltas) == done["input"] == item["input"] == TEXT
    assert done["item_id"] == item["id"]
    assert not [event for event in events if "function_call" in event["type"]]


async def test_a_chat_calls_with_text(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.answers(called("apply_patch", input=TEXT))
    (choice,) = (await client.post("/v1/chat/completions", json=chat())).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert (call["type"], call["custom"]) == ("custom", {"name": "apply_patch", "input": TEXT})


async def test_a_streamed_chat_says_a_tools_name_once(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.answers(called("apply_patch", input=TEXT))
    frames = frames_of(await client.post("/v1/chat/completions", json=chat(stream=True)))
    deltas = [frame["choices"][0]["delta"] for frame in frames]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert "".join(call["custom"]["input"] for call in calls) == TEXT
    assert [call["custom"]["name"] for call in calls if "name" in call["custom"]] == ["apply_patch"]
    assert [call["type"] for call in calls if "type" in call] == ["custom"]
    assert {call["index"] for call in calls} == {0}


async def test_a_call_that_is_cut_anywhere_says_as_much_in_a_stream_as_whole(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    written = called("apply_patch", input=TEXT)
    ended = written.index("</tool_call>")
    last = ""
    for cut in range(written.index('"arguments": ') + len('"arguments": '), ended):
        engine.answers(*[written[:cut]] * 2)
        (choice,) = (await client.post("/v1/chat/completions", json=chat())).json()["choices"]
        frames = frames_of(await client.post("/v1/chat/completions", json=chat(stream=True)))
        deltas = [frame["choices"][0]["delta"] for frame in frames]
        streamed = [call for delta in deltas for call in delta.get("tool_calls", ())]
        whole = choice["message"].get("tool_calls", ())
        assert [call["index"] for call in streamed if "id" in call] == [*range(len(whole))]
        told = "".join(call["custom"]["input"] for call in streamed)
        assert told == "".join(call["custom"]["input"] for call in whole), written[:cut]
        last = told
    assert last == TEXT


async def test_calls_that_are_cut_in_several_answers_each_say_their_own(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    head = '<tool_call>\n{"name": "apply_patch", "arguments": '
    engine.answers(head + '{"in', head + '{"input"')
    frames = frames_of(await client.post("/v1/chat/completions", json=chat(stream=True, n=2)))
    told = {0: "", 1: ""}
    for choice in (frame["choices"][0] for frame in frames):
        for call in choice["delta"].get("tool_calls", ()):
            told[choice["index"]] += call["custom"]["input"]
    assert told == {0: '{"in', 1: '{"input"'}


async def test_calls_with_text_are_told_as_the_model_wrote_them(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """So that the second prompt begins as the first one ended."""
    items = [
        {"role": "user", "content": "Change it."},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": TEXT},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done."},
    ]
    reply = await client.post("/v1/responses", json=responses(input=items))
    assert reply.status_code == 200, reply.text
    call = {"id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": TEXT}}
    messages = [
        {"role": "user", "content": "Change it."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Done."},
    ]
    reply = await client.post("/v1/chat/completions", json=chat(messages=messages))
    assert reply.status_code == 200, reply.text
    first, second = (prompt_of(job) for job in engine.jobs)
    assert first == second
    assert to_arguments(TEXT) in first
    assert "Done." in first


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", responses(tool_choice={"type": "custom", "name": "apply_patch"})),
        (
            "/v1/chat/completions",
            chat(tool_choice={"type": "custom", "custom": {"name": "apply_patch"}}),
        ),
    ],
    ids=["responses", "chat"],
)
async def test_a_demanded_tool_is_held_to_its_grammar(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    (tool,) = body["tools"]
    flat = {"type": "custom", **PATCH, "format": {"type": "grammar", **GRAMMAR}}
    nested = PATCH | {"format": {"type": "grammar", "grammar": GRAMMAR}}
    tools = [tool | {"custom": nested} if "custom" in tool else flat]
    reply = await client.post(path, json={**body, "tools": tools})
    assert reply.status_code == 200, reply.text
    (job,) = engine.jobs
    assert job.constraint is not None
    assert job.constraint.kind is ConstraintKind.LARK
    assert "%lark" in job.constraint.source


async def test_tools_in_a_namespace_keep_both_names(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    agents = {
        "type": "namespace",
        "name": "agents",
        "description": "Others.",
        "tools": [{"type": "function", "name": "spawn", "parameters": {"type": "object"}}],
    }
    engine.answers(called("agents.spawn"))
    body = {"input": "Help!", "tools": [FUNCTION, agents]}
    reply = (await client.post("/v1/responses", json=body)).json()
    (item,) = reply["output"]
    assert (item["namespace"], item["name"]) == ("agents", "spawn")
    assert [tool["type"] for tool in reply["tools"]] == ["function", "namespace"]
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "Here."}
    again = await client.post("/v1/responses", json={**body, "input": [item, output]})
    assert again.status_code == 200, again.text
    assert '"agents.spawn"' in prompt_of(engine.jobs[-1])
    named = {"type": "function", "name": "spawn"}
    held = await client.post("/v1/responses", json={**body, "tool_choice": named})
    assert held.status_code == 200, held.text
    constraint = engine.jobs[-1].constraint
    assert constraint is not None
    assert "agents.spawn" in constraint.source


HOSTED: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
    (
        "/v1/responses",
        {"input": "Hi", "tools": [FUNCTION]},
        {"type": "web_search"},
        {"type": "web_search"},
    ),
    (
        "/v1/chat/completions",
        chat(),
        {"type": "web_search"},
        {"type": "web_search"},
    ),
    (
        "/v1/messages",
        {
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"name": "run", "input_schema": {"type": "object"}}],
        },
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "tool", "name": "web_search"},
    ),
]
each_vendor = pytest.mark.parametrize(
    ("path", "body", "hosted", "choice"), HOSTED, ids=["responses", "chat", "messages"]
)


@each_vendor
async def test_a_hosted_tool_that_is_offered_beside_others_is_left_out(
    client: httpx.AsyncClient,
    engine: FakeEngine,
    path: str,
    body: dict[str, Any],
    hosted: dict[str, Any],
    choice: Any,
) -> None:
    for stream in (False, True):
        asked = {**body, "tools": [*body["tools"], hosted], "stream": stream}
        reply = await client.post(path, json=asked)
        assert reply.status_code == 200, reply.text
        assert reply.headers[LEFT_OUT] == hosted["type"]
        assert "web_search" not in prompt_of(engine.jobs[-1])
    assert LEFT_OUT not in (await client.post(path, json=body)).headers


@each_vendor
async def test_a_hosted_tool_that_is_all_there_is_or_demanded_is_refused(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], hosted: dict[str, Any], choice: Any
) -> None:
    alone = await client.post(path, json={**body, "tools": [hosted]})
    both = {**body, "tools": [*body["tools"], hosted]}
    demanded = await client.post(path, json={**both, "tool_choice": choice})
    for reply, index in ((alone, 0), (demanded, 1)):
        assert reply.status_code == 400, reply.text
        message = reply.json()["error"]["message"]
        assert f"tools[{index}].type is '{hosted['type']}', which nobody runs here" in message


async def test_hosted_tools_that_alone_are_allowed_are_refused_where_one_is_demanded(
    client: httpx.AsyncClient,
) -> None:
    hosted = {"type": "web_search"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [hosted]}
    body = {"input": "Hi", "tools": [FUNCTION, hosted], "tool_choice": allowed}
    reply = await client.post("/v1/responses", json=body)
    assert reply.status_code == 400
    assert "tool_choice demands 'web_search'" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "poem"}, "tools[0].format.type is 'poem'; it must be 'text' or 'grammar'."),
        ({"type": "grammar"}, "tools[0].format.syntax is 'None'; it must be 'lark' or 'regex'."),
        ({"type": "grammar", "syntax": "regex"}, "tools[0].format.definition is missing."),
    ],
)
async def test_a_form_that_is_none_is_refused(
    client: httpx.AsyncClient, form: dict[str, Any], message: str
) -> None:
    tools = [{"type": "custom", **PATCH, "format": form}]
    reply = await client.post("/v1/responses", json=responses(tools=tools))
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (to_arguments(TEXT), TEXT),
        (json.dumps({"input": TEXT}), TEXT),
        ('{ "input" :\n"a"}', "a"),
        ('{"input": "cut sh', "cut sh"),
        ('{"input": "half \\ud83d!"}', "half \ud83d!"),
        ('{"input": "half \\ud8', "half "),
        ('{"patch": "x"}', '{"patch": "x"}'),
        ("no JSON at all", "no JSON at all"),
        ('{"in', '{"in'),
        ("", ""),
    ],
)
def test_the_text_is_the_same_wherever_its_pieces_break(arguments: str, text: str) -> None:
    assert to_input(arguments) == text
    for cut in range(len(arguments)):
        reader = InputReader()
        pieces = [reader.feed(arguments[:cut]), reader.feed(arguments[cut:]), reader.finish()]
        assert "".join(pieces) == text
