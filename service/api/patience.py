"""Streams that have to wait for their model: they open at once, and say how far it is.

A model that has left memory, or is being switched without room for two, takes seconds to minutes to
be there. Until then nothing can be said of the answer, not even whether there will be one; but a
client and the proxies before it need signs of life. So the stream is opened before its answer has
begun, and a refusal that comes after that is told in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.replies import encode_json
from service.ipc.client import Engines
from service.ipc.status import ServiceStatus

# Whoever waits less long than this is better served with a plain refusal.
FIRST_SECONDS = 1.0
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Patience:
    """Opens streams on `paths` while there is no model yet, and comments every `seconds`."""

    def __init__(self, app: ASGIApp, paths: Collection[str], seconds: float) -> None:
        self.app = app
        self._paths = frozenset(paths)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self.app(scope, receive, send)
            return
        engines: Engines = scope["app"].state.parts.engines
        if not has_to_wait(engines.status):
            await self.app(scope, receive, send)
            return
        stream = _OpenedStream(scope["path"], receive, send)
        signs = asyncio.create_task(self._give_signs(stream, engines))
        try:
            await self.app(scope, stream.receive, stream.send)
        finally:
            signs.cancel()
            await asyncio.gather(signs, return_exceptions=True)

    async def _give_signs(self, stream: _OpenedStream, engines: Engines) -> None:
        seconds = min(FIRST_SECONDS, self._seconds)
        while not stream.begun.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await stream.begun.wait()
            except TimeoutError:
                if not stream.is_wanted:
                    return
                await stream.comment(how_far(engines.status))
                seconds = self._seconds


class _OpenedStream:
    """A reply that may be opened before the application begins it."""

    def __init__(self, path: str, receive: Receive, send: Send) -> None:
        self.begun = asyncio.Event()
        self._path = path
        self._receive = receive
        self._send = send
        self._body = b""
        self._is_open = False
        self._refusal: bytes | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether the request asks for a stream."""
        return self._path == "/chat/stream" or self._asked().get("stream") is True

    async def comment(self, words: str) -> None:
        if not self._is_open:
            self._is_open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if not self.begun.is_set():
            await self._send(_body(f": {words}\n\n".encode(), more=True))

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._body += message.get("body", b"")
        return message

    async def send(self, message: Message) -> None:
        """What the application says; where the stream is open, a refusal becomes its end."""
        if message["type"] == "http.response.start":
            self.begun.set()
            if not self._is_open:
                await self._send(message)
            elif message["status"] != 200:
                self._refusal = b""
            return
        if self._refusal is None:
            await self._send(message)
            return
        self._refusal += message.get("body", b"")
        if not message.get("more_body", False):
            frames = to_frames(self._path, self._asked(), json.loads(self._refusal))
            await self._send(_body(frames, more=False))

    def _asked(self) -> dict[str, Any]:
        try:
            asked = json.loads(self._body)
        except ValueError:  # nonsense, or not all here yet; the application says what it thinks
            return {}
        return asked if isinstance(asked, dict) else {}


def has_to_wait(status: ServiceStatus) -> bool:
    """Whether a chat that comes now waits for a model."""
    switching = status.switch is not None and not status.switch.is_over
    return status.sleeper is not None or switching


def how_far(status: ServiceStatus) -> str:
    """What a stream waits for, in the words of a comment."""
    loading = status.sleeper or next((e for e in status.engines if e.progress < 1), None)
    if loading is None:
        return "waiting for the model"
    return f"loading {loading.model} {loading.progress:.0%}"


def to_frames(path: str, asked: dict[str, Any], refusal: dict[str, Any]) -> bytes:
    """A refusal as the last frames of a stream, in the words of the path's dialect."""
    if path == "/chat/stream":
        sentence = str(refusal.get("reason") or refusal.get("detail"))
        if "user_input" in asked:
            return f"data: [{sentence}]\n\ndata: [END]\n\n".encode()
        return b"data: " + encode_json({"error": sentence, "done": True}) + b"\n\n"
    if path.startswith(("/v1/messages", "/v1/responses")):
        return b"event: error\ndata: " + encode_json(refusal) + b"\n\n"
    return b"data: " + encode_json(refusal) + b"\n\n"


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
