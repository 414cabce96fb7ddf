"""From what a generation yields to Anthropic's events.

`message_start`, `ping`; for each block, one after the other: `content_block_start`, its deltas,
`content_block_stop`; then `message_delta` with the stop reason and the usage, `message_stop`.
"""

from __future__ import annotations

from typing import Any

from service.api.dialects.anthropic.errors import to_error_body
from service.api.dialects.anthropic.replies import SIGNATURE, Reply, Thoughts, to_usage
from service.api.dialects.anthropic.tools import to_use_id
from service.api.errors import Problem
from service.api.replies import encode_json
from service.domain.events import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

_EMPTY_BLOCKS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "input": {}},
}
# What a block's deltas are called, and where they hold their text.
_DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


def to_frame(event: dict[str, Any]) -> bytes:
    """The vendor's clients go by the event's name, and skip data that has none."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + encode_json(event) + b"\n\n"


PING = to_frame({"type": "ping"})


class MessageFrames:
    """One streamed message. Blocks are numbered in the order in which they start; everything
    around a delta's text is encoded once per block.
    """

    def __init__(self, reply: Reply, prompt_tokens: int, request_id: str) -> None:
        self._reply = reply
        self._prompt_tokens = prompt_tokens
        self._request_id = request_id
        self._index = -1
        self._kind: str | None = None
        self._before = b""

    def opening(self) -> bytes:
        """How many tokens were cached is known only at the end, where it is said again."""
        head = self._reply.head([], Usage(prompt_tokens=self._prompt_tokens))
        return to_frame({"type": "message_start", "message": head}) + PING

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return self._delta("text", event.text)
        if isinstance(event, ReasoningDelta):
            return self._thought(event.text)
        if isinstance(event, ToolCallDelta):
            return self._call(event)
        if isinstance(event, Finished):
            return self._ending(event)
        raise TypeError(f"{type(event).__name__} has no frame in this dialect")

    def failure(self, problem: Problem) -> bytes:
        """The vendor's client raises it."""
        body = to_error_body(problem) | {"request_id": self._request_id}
        return to_frame(body)

    def _thought(self, text: str) -> bytes:
        if self._reply.thoughts is Thoughts.SHOWN:
            return self._delta("thinking", text)
        if self._reply.thoughts is Thoughts.EMPTIED and self._kind != "thinking":
            return self._start("thinking")
        return b""

    def _call(self, delta: ToolCallDelta) -> bytes:
        """Each call is a block of its own."""
        started = b""
        if delta.name is not None:
            started = self._start("tool_use", id=to_use_id(delta.id or ""), name=delta.name)
        if started and not delta.arguments:
            return started
        return started + self._delta("tool_use", delta.arguments)

    def _delta(self, kind: str, text: str) -> bytes:
        started = b"" if kind == self._kind else self._start(kind)
        return started + self._before + encode_json(text) + b"}}\n\n"

    def _start(self, kind: str, **facts: str) -> bytes:
        stopped = self._stop()
        self._kind = kind
        self._index += 1
        self._before = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":'
        ) % (self._index, *_DELTAS[kind])
        block = _EMPTY_BLOCKS[kind] | facts
        return stopped + to_frame(
            {"type": "content_block_start", "index": self._index, "content_block": block}
        )

    def _stop(self) -> bytes:
        """The end of the block that is open, if any is."""
        if self._kind is None:
            return b""
        signed = b""
        if self._kind == "thinking":
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            signed = to_frame({"type": "content_block_delta", "index": self._index, "delta": delta})
        self._kind = None
        return signed + to_frame({"type": "content_block_stop", "index": self._index})

    def _ending(self, finished: Finished) -> bytes:
        delta = self._reply.stop(finished)
        usage = to_usage(finished.usage)
        last = to_frame({"type": "message_delta", "delta": delta, "usage": usage})
        return self._stop() + last + to_frame({"type": "message_stop"})
