"""The wire, word for word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from service.api.dialects.anthropic.schemas import (
    CountTokensReply,
    MessagesEvent,
    MessagesReply,
    RefusalReply,
)
from service.api.dialects.llama_server import schemas as llama_server
from service.api.dialects.llama_server.schemas import RerankReply, TokenizeReply
from service.api.dialects.native.schemas import Detail, MessageReply, StreamFrame, UserInputReply
from service.api.dialects.openai.completions import TextCompletionReply
from service.api.dialects.openai.embeddings import EmbeddingsReply
from service.api.dialects.openai.prompts import PromptReply
from service.api.dialects.openai.schemas import (
    ChatCompletionChunk,
    ChatCompletionReply,
    ErrorReply,
)
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine
from tests.golden.pairs import FOLDER, OPENAPI, REQUESTS, ask, reply_of, to_text
from tests.sdk.published import Published

IDS = [str(path.relative_to(FOLDER)).removesuffix(".request.json") for path in REQUESTS]
REPLIES = sorted(FOLDER.glob("*/*.reply.*"))
OPENAI_REPLIES = [path for path in REPLIES if path.parent.name == "openai"]


@pytest.mark.parametrize("request_path", REQUESTS, ids=IDS)
async def test_the_reply_is_the_recorded_one(request_path: Path, tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        reply = await ask(client, engine, request_path)
    assert to_text(reply) == reply_of(request_path, reply).read_text()


async def test_the_document_is_the_recorded_one(tmp_path: Path) -> None:
    async with running_app(FakeEngine(), tmp_path) as app:
        document = app.openapi()
    assert json.loads(json.dumps(document)) == json.loads(OPENAPI.read_text()), (
        "the published document changed; `python -m tests.golden` records it anew"
    )


def bodies(path: Path) -> list[str]:
    """The JSON objects of a recorded reply."""
    text = path.read_text()
    if path.suffix == ".json":
        return [json.dumps(json.loads(text)["body"])]
    frames = [frame.partition("data: ")[2] for frame in text.split("\n\n")]
    return [frame for frame in frames if frame.startswith("{")]


@pytest.mark.parametrize("path", REPLIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recorded_replies_are_as_documented(path: Path) -> None:
    documented: dict[tuple[str, str], tuple[type[BaseModel], ...]] = {
        ("anthropic", ".json"): (MessagesReply, RefusalReply, CountTokensReply),
        ("anthropic", ".sse"): (MessagesEvent,),
        ("openai", ".json"): (ChatCompletionReply, ErrorReply),
        ("openai", ".sse"): (ChatCompletionChunk, ErrorReply),
        ("embeddings", ".json"): (EmbeddingsReply, PromptReply, ErrorReply),
        ("llama_server", ".json"): (RerankReply, TokenizeReply, llama_server.ErrorReply),
        ("completions", ".json"): (TextCompletionReply, ErrorReply),
        ("completions", ".sse"): (TextCompletionReply, ErrorReply),
        ("native", ".json"): (UserInputReply, MessageReply, Detail),
        ("native", ".sse"): (StreamFrame,),
    }
    for body in bodies(path):
        keys = set(json.loads(body))
        kinds = documented[path.parent.name, path.suffix]
        kind = next(kind for kind in kinds if keys <= set(kind.model_fields) | {"reason"})
        kind.model_validate_json(body, strict=True)


@pytest.mark.parametrize("path", OPENAI_REPLIES, ids=lambda path: path.name)
def test_recorded_replies_are_what_the_vendor_publishes(path: Path, published: Published) -> None:
    whole = "CreateChatCompletionResponse"
    chunk = "CreateChatCompletionStreamResponse"
    for body in map(json.loads, bodies(path)):
        schema = whole if path.suffix == ".json" else chunk
        published.check("ErrorResponse" if "error" in body else schema, body)
