"""The two kinds of stream that `/chat/stream` writes."""

from __future__ import annotations

import re
from typing import Any

from service.api.dialects.native.errors import to_sentence
from service.api.errors import Problem
from service.api.replies import encode_json
from service.domain.events import Event, Finished, TextDelta

_END = "[END]"
_NEWLINE_BEFORE_NEWLINE = re.compile(r"\n(?=\n)")


class TextFrames:
    """Raw text after `data: `, ended by `[END]`.

    The clients of this stream cut it at empty lines and keep what starts with `data: `. So no
    payload may hold an empty line or end in a line break: such breaks wait for what follows them,
    an empty line is written with a space in it, breaks at the very end are left out, and an answer
    that spells the end mark is split. A failure is told in words, as there is no other way.
    """

    def __init__(self) -> None:
        self._held = ""

    def opening(self) -> bytes:
        return b""

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return self._text(event.text)
        return _text_frame(_END) if isinstance(event, Finished) else b""

    def failure(self, problem: Problem) -> bytes:
        words = f"\n[{to_sentence(problem)}]".encode("utf-8", "replace").decode()
        return self._text(words) + _text_frame(_END)

    def _text(self, text: str) -> bytes:
        text = self._held + text
        payload = text.rstrip("\n")
        self._held = text[len(payload) :]
        if not payload:
            return b""
        payload = _NEWLINE_BEFORE_NEWLINE.sub("\n ", payload)
        if payload == _END:
            return _text_frame(payload[:4]) + _text_frame(payload[4:])
        return _text_frame(payload)


def _text_frame(payload: str) -> bytes:
    return b"data: " + payload.encode() + b"\n\n"


class JsonFrames:
    """A JSON object after each `data: `; the last one has `done`, also when the answer broke."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id

    def opening(self) -> bytes:
        return _json_frame({"session_id": self._session_id})

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return _json_frame({"token": event.text})
        if not isinstance(event, Finished):
            return b""
        return _json_frame(
            {
                "done": True,
                "session_id": self._session_id,
                "finish_reason": event.reason.value,
                "tokens_used": event.usage.total_tokens,
                "completion_tokens": event.usage.completion_tokens,
            }
        )

    def failure(self, problem: Problem) -> bytes:
        return _json_frame(
            {"error": to_sentence(problem), "done": True, "session_id": self._session_id}
        )


def _json_frame(value: dict[str, Any]) -> bytes:
    return b"data: " + encode_json(value) + b"\n\n"
