"""The vendors' npm packages against a running server: what they make of it, in JavaScript."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from service.domain.errors import EngineUnavailable, QueueFull
from tests.api.running import listening, running_app
from tests.fakes.companion import EMBEDDER
from tests.fakes.engine import FakeEngine
from tests.sdk.node_packages import FOLDER, node_modules
from tests.sdk.published import Published

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(300)]
CALL = '<tool_call>\n{"name": "look", "arguments": {"city": "東京"}}\n</tool_call>'
Run = Callable[[str, str], Coroutine[Any, Any, Any]]


@pytest.fixture(scope="session")
def packages() -> Path:
    return node_modules()


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(answer="Paris, of course.")
    engine.companion(EMBEDDER)
    return engine


@pytest_asyncio.fixture
async def run(packages: Path, engine: FakeEngine, tmp_path: Path) -> AsyncIterator[Run]:
    async with running_app(engine, tmp_path) as app, listening(app) as url:

        async def run(script: str, scenario: str) -> Any:
            environment = {**os.environ, "NODE_PATH": str(packages)}
            process = await asyncio.create_subprocess_exec(
                *("node", str(FOLDER / script), scenario, url),
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            told, faults = await process.communicate()
            assert process.returncode == 0, faults.decode()
            return json.loads(told)

        yield run


async def test_openai_plain(run: Run, published: Published) -> None:
    reply = await run("openai.cjs", "plain")
    assert reply["choices"][0]["message"]["content"] == "Paris, of course."
    published.check("CreateChatCompletionResponse", reply)


async def test_openai_stream_adds_up(run: Run, published: Published) -> None:
    told = await run("openai.cjs", "stream")
    assert "".join(told["pieces"]) == "Paris, of course."
    choice = told["final"]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Paris, of course.", "stop")
    assert told["usage"]["completion_tokens"] == 3
    for chunk in await run("openai.cjs", "raw"):
        published.check("CreateChatCompletionStreamResponse", chunk)


async def test_openai_calls_a_tool_and_uses_what_it_said(run: Run, engine: FakeEngine) -> None:
    engine.answers(CALL, "It has 18 degrees.")
    told = await run("openai.cjs", "tools")
    assert told["asked"] == [{"city": "東京"}]
    assert told["content"] == "It has 18 degrees."
    assert told["roles"] == ["user", "assistant", "tool", "assistant"]
    assert "18 degrees in 東京" in "".join(piece.text for piece in engine.jobs[1].prompt)


async def test_openai_reads_an_answer_as_a_type(run: Run, engine: FakeEngine) -> None:
    engine.answers('{"city": "Paris"}')
    assert await run("openai.cjs", "structured") == {"city": "Paris"}
    assert engine.jobs[0].constraint is not None


@pytest.mark.parametrize("script", ["openai.cjs", "anthropic.cjs"])
async def test_an_aborted_stream_is_cancelled(run: Run, engine: FakeEngine, script: str) -> None:
    engine.paced = True
    async with asyncio.timeout(120):
        running = asyncio.create_task(run(script, "abort"))
        await engine.until(lambda: engine.running)
        await engine.write(1)
        await engine.until(lambda: engine.cancelled)
        told = await running
    assert told in ({"aborted": True}, {"kind": "APIUserAbortError"})


async def test_openai_refusals_are_its_classes(run: Run) -> None:
    faults = await run("openai.cjs", "errors")
    assert [(fault["kind"], fault["status"], fault["param"]) for fault in faults] == [
        ("NotFoundError", 404, "model"),
        ("BadRequestError", 400, "temperature"),
        ("BadRequestError", 400, "messages[0].content[0]"),
        ("NotFoundError", 404, "model"),
        ("NotFoundError", 404, faults[4]["param"]),
    ]
    assert faults[0]["code"] == "model_not_found"
    assert all(fault["hasId"] for fault in faults)


async def test_openai_faults_are_its_classes_and_tried_again(run: Run, engine: FakeEngine) -> None:
    engine.refuses(EngineUnavailable("It loads.", retry_after_seconds=0.01))
    assert (await run("openai.cjs", "fault"))["kind"] == "InternalServerError"
    engine.refuses(QueueFull("64 requests are waiting.", retry_after_seconds=0.01))
    reply = await run("openai.cjs", "retry")
    assert reply["choices"][0]["message"]["content"] == "Paris, of course."


async def test_openai_embeddings_come_as_base64_by_default(run: Run) -> None:
    told = await run("openai.cjs", "embeddings")
    assert [each["index"] for each in told["usual"]] == [0, 1]
    for usual, plain in zip(told["usual"], told["plain"], strict=True):
        assert usual["embedding"] == pytest.approx(plain["embedding"])


async def test_openai_models(run: Run) -> None:
    assert await run("openai.cjs", "models") == ["fake", "fake-embedder"]


async def test_openai_responses_are_kept_streamed_and_deleted(run: Run, engine: FakeEngine) -> None:
    told = await run("openai.cjs", "responses")
    assert (told["first"], told["second"]) == ("Paris, of course.", "Paris, of course.")
    assert (told["kinds"][0], told["kinds"][-1]) == ("response.created", "response.completed")
    assert told["kept"].startswith("resp_")
    assert told["gone"]["kind"] == "NotFoundError"
    assert "Capital of France?" in "".join(piece.text for piece in engine.jobs[1].prompt)


async def test_anthropic_plain(run: Run) -> None:
    message = await run("anthropic.cjs", "plain")
    assert message["content"] == [{"type": "text", "text": "Paris, of course."}]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("end_turn", 3)


async def test_anthropic_stream_adds_up(run: Run) -> None:
    told = await run("anthropic.cjs", "stream")
    assert told["pieces"] == ["Paris,", " of", " course."]
    assert told["final"]["content"] == [{"type": "text", "text": "Paris, of course."}]
    assert await run("anthropic.cjs", "raw") == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_anthropic_calls_a_tool_and_uses_what_it_said(run: Run, engine: FakeEngine) -> None:
    engine.answers(CALL, "It has 18 degrees.")
    told = await run("anthropic.cjs", "tools")
    (call,) = told["first"]["content"]
    assert (call["name"], call["input"]) == ("look", {"city": "東京"})
    assert told["first"]["stop_reason"] == "tool_use"
    assert told["second"]["content"][0]["text"] == "It has 18 degrees."
    assert "18 degrees" in "".join(piece.text for piece in engine.jobs[1].prompt)


async def test_anthropic_thoughts_are_signed_blocks(run: Run, engine: FakeEngine) -> None:
    engine.answers("<think>France, so</think>Paris.")
    thought, answer = (await run("anthropic.cjs", "thinking"))["content"]
    assert (thought["thinking"], answer["text"]) == ("France, so", "Paris.")
    assert thought["signature"]


async def test_anthropic_answers_are_held_to_a_schema(run: Run, engine: FakeEngine) -> None:
    engine.answers('{"city": "Paris"}')
    assert await run("anthropic.cjs", "structured") == {"city": "Paris"}
    assert engine.jobs[0].constraint is not None


async def test_anthropic_answers_may_be_begun(run: Run, engine: FakeEngine) -> None:
    engine.answers(" Paris.")
    message = await run("anthropic.cjs", "prefill")
    assert message["content"] == [{"type": "text", "text": " Paris."}]


async def test_anthropic_refusals_are_its_classes(run: Run) -> None:
    faults = await run("anthropic.cjs", "errors")
    assert [(fault["kind"], fault["type"]) for fault in faults] == [
        ("NotFoundError", "not_found_error"),
        ("BadRequestError", "invalid_request_error"),
        ("BadRequestError", "invalid_request_error"),
        ("NotFoundError", "not_found_error"),
    ]


async def test_anthropic_faults_are_its_classes(run: Run, engine: FakeEngine) -> None:
    engine.refuses(QueueFull("64 requests are waiting.", retry_after_seconds=1))
    fault = await run("anthropic.cjs", "fault")
    assert (fault["kind"], fault["status"]) == ("OverloadedError", 529)


async def test_anthropic_counts_are_those_of_the_answer(run: Run) -> None:
    told = await run("anthropic.cjs", "count")
    usage = told["usage"]
    assert told["counted"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


async def test_anthropic_models(run: Run) -> None:
    assert await run("anthropic.cjs", "models") == ["fake"]
