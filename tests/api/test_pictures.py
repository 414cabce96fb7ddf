"""Pictures in each dialect, for a model that sees and for one that does not."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.domain.pictures import PICTURE_MARK
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FAKE_MODEL, FakeEngine
from tests.pictures.files import png

RED, BLUE = png(), png(colour=(0, 0, 250))
DATA = {data: base64.b64encode(data).decode() for data in (RED, BLUE)}


def url(data: bytes) -> str:
    return f"data:image/png;base64,{DATA[data]}"


def openai(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(data), "detail": "low"}}


def anthropic(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": DATA[data]}
    return {"type": "image", "source": source}


def responses(data: bytes) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url(data), "detail": "auto"}


def asked(path: str, *content: dict[str, Any]) -> dict[str, Any]:
    """A user's message with this content."""
    said = [{"role": "user", "content": list(content)}]
    if path == "/v1/responses":
        return {"input": said}
    return {"messages": said, "max_tokens": 64}


PATHS: dict[str, tuple[str, Callable[[bytes], dict[str, Any]]]] = {
    "/v1/chat/completions": ("text", openai),
    "/v1/messages": ("text", anthropic),
    "/v1/responses": ("input_text", responses),
}
DIALECTS = pytest.mark.parametrize("path", PATHS)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(replace(FAKE_MODEL, sees=True))


@pytest_asyncio.fixture
async def client(engine: FakeEngine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(engine, tmp_path) as app, connected_client(app) as client:
        yield client


@DIALECTS
async def test_pictures_stand_in_the_prompt_where_they_were_said(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    text, shown = PATHS[path]
    content = [
        {"type": text, "text": "First"},
        shown(RED),
        {"type": text, "text": "then"},
        shown(BLUE),
        {"type": text, "text": "and?"},
    ]
    reply = await client.post(path, json=asked(path, *content))
    assert reply.status_code == 200, reply.text
    job = engine.jobs[-1]
    assert job.pictures == (RED, BLUE)
    told = "".join("<picture>" if piece.picture else piece.text for piece in job.prompt)
    words = told.replace("\n\n", "")
    assert "First<picture>then<picture>and?" in words
    digests = [piece.picture for piece in job.prompt if piece.picture]
    assert len(set(digests)) == 2


@DIALECTS
async def test_a_model_without_a_projector_refuses_pictures_by_name(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.model = FAKE_MODEL
    reply = await client.post(path, json=asked(path, PATHS[path][1](RED)))
    assert reply.status_code == 400, reply.text
    reason = "is a picture, and fake reads only text: it has no projector file (mmproj), "
    reason += "or none that can be used, and then the log says why."
    assert reason in reply.json()["error"]["message"]
    assert engine.jobs == []


@DIALECTS
async def test_what_is_no_picture_is_refused_by_its_place(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    wrong = base64.b64encode(b"hello").decode()
    shown = PATHS[path][1](RED)
    contents: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {**shown, "image_url": {"url": f"data:image/png;base64,{wrong}"}},
        "/v1/messages": {**shown, "source": {"type": "base64", "data": wrong}},
        "/v1/responses": {**shown, "image_url": f"data:image/png;base64,{wrong}"},
    }
    reply = await client.post(path, json=asked(path, contents[path]))
    assert reply.status_code == 400, reply.text
    assert "[0].content[0] is no picture that can be read" in reply.json()["error"]["message"]
    assert engine.jobs == []


@DIALECTS
async def test_inner_addresses_are_not_asked(client: httpx.AsyncClient, path: str) -> None:
    inner = "https://127.0.0.1/a.png"
    contents: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"type": "image_url", "image_url": {"url": inner}},
        "/v1/messages": {"type": "image", "source": {"type": "url", "url": inner}},
        "/v1/responses": {"type": "input_image", "image_url": inner},
    }
    reply = await client.post(path, json=asked(path, contents[path]))
    assert reply.status_code == 400, reply.text
    assert "127.0.0.1 is not at a public address" in reply.json()["error"]["message"]


@DIALECTS
async def test_the_mark_of_a_picture_can_be_spelled_only_where_there_are_none(
    client: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    text, shown = PATHS[path]
    spelled = {"type": text, "text": f"a {PICTURE_MARK} b"}
    reply = await client.post(path, json=asked(path, spelled))
    assert reply.status_code == 200, reply.text
    assert not any(piece.picture for piece in engine.jobs[-1].prompt)
    reply = await client.post(path, json=asked(path, spelled, shown(RED)))
    assert reply.status_code == 400, reply.text
    assert "holds U+FDD0, which is no character" in reply.json()["error"]["message"]


async def test_a_tool_may_show_a_picture(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    turns = [
        {"role": "user", "content": "Look."},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a", "content": [anthropic(RED)]}],
        },
    ]
    reply = await client.post("/v1/messages", json={"messages": turns, "max_tokens": 9})
    assert reply.status_code == 200, reply.text
    assert engine.jobs[-1].pictures == (RED,)


async def test_an_assistant_shows_none(client: httpx.AsyncClient) -> None:
    turns = [{"role": "assistant", "content": [openai(RED)]}, {"role": "user", "content": "So?"}]
    reply = await client.post("/v1/chat/completions", json={"messages": turns})
    assert reply.status_code == 400, reply.text
    assert "text is read, and image_url of users and tools" in reply.json()["error"]["message"]
