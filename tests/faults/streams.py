"""Streams that go on until something ends them, read as a client reads them."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx

# The tokens with which Pocket ends an answer; without them it goes on to the length it may have.
ENDS = {"0": -100, "1": -100, "2": -100}
# An answer that is held to this by `text` of Responses does not come to an end, either.
TEXT = {"type": "string", "minLength": 6, "maxLength": 12}
MANY = {"type": "array", "items": TEXT, "minItems": 400}
MANY_TEXTS = {"format": {"type": "json_schema", "name": "many", "schema": MANY}}
PATIENCE_SECONDS = 180  # eight long answers on a machine that has much else to do


@dataclass
class Stream:
    """One streamed answer, read in a thread of its own.

    `started` is set at the first text. Once `wait` has returned: `finish_reason` and `error` as
    they were sent, the usage, and `whole` when the body ended as HTTP wants it, after `[DONE]` or
    an error.
    """

    url: str
    max_tokens: int
    started: threading.Event = field(default_factory=threading.Event)
    status: int = 0
    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int = 0
    error: dict[str, Any] | None = None
    whole: bool = False
    broken: str = ""

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self) -> Stream:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        return self

    def _read(self) -> None:
        body = {
            "model": "pocket",
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "logit_bias": ENDS,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        last = ""
        try:
            with httpx.stream(
                "POST", self.url + "/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS
            ) as reply:
                self.status = reply.status_code
                for line in reply.iter_lines():
                    if line.startswith("data: "):
                        last = line.removeprefix("data: ")
                        self._take(last)
            self.whole = last == "[DONE]" or self.error is not None
        except httpx.HTTPError as error:
            self.broken = repr(error)
        finally:
            self.started.set()

    def _take(self, data: str) -> None:
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        self.error = self.error or chunk.get("error")
        self.completion_tokens = (chunk.get("usage") or {}).get("completion_tokens", 0)
        for choice in chunk.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            piece = choice["delta"].get("content") or ""
            self.text += piece
            if piece:
                self.started.set()


def start_streams(url: str, count: int, max_tokens: int) -> list[Stream]:
    """`count` streams of `max_tokens` tokens each; all have begun to answer."""
    streams = [Stream(url, max_tokens) for _ in range(count)]
    for stream in streams:
        assert stream.started.wait(PATIENCE_SECONDS)
    return streams
