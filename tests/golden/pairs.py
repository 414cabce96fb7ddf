"""Recorded requests with the replies they must get.

A `NAME.request.json` holds `path`, `body` and what the fake engine answers; beside it lies the
reply: `NAME.reply.json`, or `NAME.reply.sse` where it is a stream. What differs from run to run
(ids, times) is written as a placeholder.

    python -m tests.golden        # write all replies and openapi.json anew; read the diff
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.companion import EMBEDDER, RERANKER
from tests.fakes.engine import FakeEngine

FOLDER = Path(__file__).parent
OPENAPI = FOLDER / "openapi.json"
REQUESTS = sorted(FOLDER.glob("*/*.request.json"))
_PLACEHOLDERS = (
    (re.compile(r"cmpl-[0-9a-f]{32}"), "cmpl-ID"),
    (re.compile(r"msg_[0-9a-f]{32}"), "msg_ID"),
    (re.compile(r"call_[0-9a-f]{24}"), "call_ID"),
    (re.compile(r"toolu_[0-9a-f]{24}"), "toolu_ID"),
    (re.compile(r'"request_id": ?"[0-9a-f]{32}"'), '"request_id":"ID"'),
    (re.compile(r'"created": ?\d+'), '"created":0'),
    (re.compile(r"fp_[0-9a-f]{8}"), "fp_ID"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
)


def reply_of(request: Path, reply: httpx.Response) -> Path:
    """Where the recorded reply lies, by what kind of reply it is."""
    is_stream = reply.headers["content-type"].startswith("text/event-stream")
    suffix = ".reply.sse" if is_stream else ".reply.json"
    return request.with_name(request.name.replace(".request.json", suffix))


async def ask(client: httpx.AsyncClient, engine: FakeEngine, request: Path) -> httpx.Response:
    recorded = _recorded(request)
    for model in (EMBEDDER, RERANKER):
        engine.companion(model)
    if "answer" in recorded:
        engine.answers(recorded["answer"])
    return await client.post(recorded["path"], json=recorded["body"])


def _recorded(request: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(request.read_text())
    return recorded


def to_text(reply: httpx.Response) -> str:
    """A reply as it is recorded: streams as they are, JSON with its status and indented."""
    text = reply.text
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    if reply.headers["content-type"].startswith("text/event-stream"):
        return text
    recorded = {"status": reply.status_code, "body": json.loads(text)}
    return json.dumps(recorded, indent=2, ensure_ascii=False) + "\n"
