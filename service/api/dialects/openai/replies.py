"""From what a generation yields to OpenAI's replies and frames."""

from __future__ import annotations

import time
import uuid
import zlib
from dataclasses import dataclass, field
from typing import Any

from service import __version__
from service.api.dialects.openai.errors import to_error_body
from service.api.dialects.openai.tools import to_call_delta, to_call_replies
from service.api.errors import Problem
from service.api.replies import encode_json
from service.chat.generate import Answer
from service.domain.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from service.domain.model import ModelInfo

_FINISH_WORDS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    # The vendor has no words for these: the answer is cut short, which is what `length` says.
    FinishReason.CANCELLED: "length",
    FinishReason.SHUTDOWN: "length",
    FinishReason.DEADLINE: "length",
}


@dataclass(frozen=True, slots=True)
class Completion:
    """What all frames of one answer have in common."""

    model: ModelInfo
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.name,
            "system_fingerprint": to_fingerprint(self.model),
        }


def to_fingerprint(model: ModelInfo) -> str:
    """Changes whenever the same seed may give another answer: with the model or our version."""
    facts = f"{__version__}/{model.name}/{model.size_bytes}/{model.created}"
    return f"fp_{zlib.crc32(facts.encode()):08x}"


def to_reply(completion: Completion, answer: Answer, *, with_reasoning: bool) -> dict[str, Any]:
    content = answer.text if answer.text or not answer.tool_calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = to_call_replies(answer.tool_calls)
    if with_reasoning and answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _FINISH_WORDS[answer.finished.reason],
    }
    head = completion.head("chat.completion")
    return {**head, "choices": [choice], "usage": to_usage(answer.finished.usage)}


def to_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def to_model_reply(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "parley",
        "description": model.description,
        "context_length": model.context_length,
    }


class CompletionFrames:
    """One streamed answer. The role is said once, `finish_reason` is in every choice, and with
    `with_usage` so is `usage`, whose numbers come in a last frame without choices.

    Everything around a delta is encoded once per stream: only the delta differs.
    """

    def __init__(
        self, completion: Completion, *, with_usage: bool = False, with_reasoning: bool = False
    ) -> None:
        self._completion = completion
        self._with_usage = with_usage
        self._with_reasoning = with_reasoning
        head = encode_json(completion.head("chat.completion.chunk"))[:-1]
        usage = b',"usage":null' if with_usage else b""
        self._before = b"data: " + head + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def opening(self) -> bytes:
        return self._frame({"role": "assistant", "content": ""})

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return self._frame({"content": event.text})
        if isinstance(event, ToolCallDelta):
            return self._frame({"tool_calls": [to_call_delta(event)]})
        if isinstance(event, ReasoningDelta):
            return self._frame({"reasoning_content": event.text}) if self._with_reasoning else b""
        if isinstance(event, Finished):
            return self._ending(event)
        raise TypeError(f"{type(event).__name__} has no frame in this dialect")

    def failure(self, problem: Problem) -> bytes:
        """An error frame and no `[DONE]`: the vendor's client raises it."""
        return b"data: " + encode_json(to_error_body(problem)) + b"\n\n"

    def _frame(self, delta: dict[str, Any]) -> bytes:
        return self._before + encode_json(delta) + self._after

    def _ending(self, finished: Finished) -> bytes:
        word = _FINISH_WORDS[finished.reason].encode()
        data = self._before + b"{}" + self._after.replace(b"null}]", b'"' + word + b'"}]', 1)
        if self._with_usage:
            head = self._completion.head("chat.completion.chunk")
            last = {**head, "choices": [], "usage": to_usage(finished.usage)}
            data += b"data: " + encode_json(last) + b"\n\n"
        return data + b"data: [DONE]\n\n"
