"""From what a generation yields to OpenAI's replies and frames."""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from service import __version__
from service.api.dialects.openai.calls import CallWords
from service.api.dialects.openai.logprobs import to_logprobs
from service.api.dialects.openai.reasoning import Thoughts, ThoughtTags, with_thought
from service.api.errors import Problem
from service.api.openai_errors import to_error_body
from service.api.replies import encode_json
from service.chat.generate import Answer
from service.domain.events import (
    Event,
    Finished,
    FinishReason,
    OfChoice,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from service.domain.model import ModelInfo

_FINISH_WORDS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
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


def to_reply(
    completion: Completion,
    answers: Sequence[Answer],
    usage: Usage,
    *,
    thoughts: Thoughts,
    with_logprobs: bool,
    calls: CallWords,
) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": _to_message(answer, thoughts, calls),
            "logprobs": to_logprobs(answer.logprobs) if with_logprobs else None,
            "finish_reason": _to_word(answer.finished, calls),
        }
        for index, answer in enumerate(answers)
    ]
    head = completion.head("chat.completion")
    return {**head, "choices": choices, "usage": to_usage(usage)}


def _to_word(finished: Finished, calls: CallWords) -> str:
    if finished.reason is FinishReason.TOOL_CALLS:
        return calls.finish_word
    return _FINISH_WORDS[finished.reason]


def _to_message(answer: Answer, thoughts: Thoughts, calls: CallWords) -> dict[str, Any]:
    text = answer.text
    if thoughts is Thoughts.IN_TEXT:
        text = with_thought(answer.reasoning, text)
    content = text if text or not answer.tool_calls else None
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.tool_calls:
        message |= calls.whole(answer.tool_calls)
    if answer.reasoning and thoughts is not Thoughts.LEFT_OUT:
        message["reasoning_content"] = answer.reasoning
    return message


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
    """One streamed answer, or `num_choices` of them side by side. The role is said once in each,
    `finish_reason` is in every choice, and with `with_usage` so is `usage`, whose numbers come in
    a last frame without choices.

    Everything around a delta is encoded once per stream: only the delta differs.
    """

    def __init__(
        self,
        completion: Completion,
        calls: CallWords,
        *,
        num_choices: int = 1,
        with_usage: bool = False,
        thoughts: Thoughts = Thoughts.LEFT_OUT,
    ) -> None:
        self._completion = completion
        self._calls = calls
        self._with_usage = with_usage
        self._thoughts = thoughts
        self._tags = [ThoughtTags() for _ in range(num_choices)]
        head = encode_json(completion.head("chat.completion.chunk"))[:-1]
        self._before = [
            b'data: %b,"choices":[{"index":%d,"delta":' % (head, choice)
            for choice in range(num_choices)
        ]
        self._after = (b',"usage":null' if with_usage else b"") + b"}\n\n"

    def opening(self) -> bytes:
        role = {"role": "assistant", "content": ""}
        return b"".join(self._frame(choice, role) for choice in range(len(self._before)))

    def event(self, event: Event) -> bytes:
        if isinstance(event, OfChoice):
            return self._of_choice(event.choice, event.event)
        if isinstance(event, Finished):
            # One alone says with its last word why it ended; of several, each has said so.
            ending = self._of_choice(0, event) if len(self._before) == 1 else b""
            return ending + self._closing(event)
        return self._of_choice(0, event)

    def failure(self, problem: Problem) -> bytes:
        """An error frame and no `[DONE]`: the vendor's client raises it."""
        return b"data: " + encode_json(to_error_body(problem)) + b"\n\n"

    def _of_choice(self, choice: int, event: Event) -> bytes:
        if self._thoughts is Thoughts.IN_TEXT:
            tagged = self._tags[choice].delta(event)
            before = b"" if tagged is None else self._frame(choice, tagged)
            return (
                before if isinstance(event, ReasoningDelta) else before + self._own(choice, event)
            )
        return self._own(choice, event)

    def _own(self, choice: int, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return self._frame(choice, {"content": event.text}, event.logprobs)
        if isinstance(event, ToolCallDelta):
            told = self._calls.delta(choice, event)
            return self._frame(choice, told) if told else b""
        if isinstance(event, ReasoningDelta):
            if self._thoughts is Thoughts.LEFT_OUT:
                return b""
            return self._frame(choice, {"reasoning_content": event.text})
        if isinstance(event, Finished):
            word = _to_word(event, self._calls).encode()
            ending = b'{},"logprobs":null,"finish_reason":"%b"}]' % word
            rest = self._calls.rest(choice)
            before = self._frame(choice, rest) if rest else b""
            return before + self._before[choice] + ending + self._after
        raise TypeError(f"{type(event).__name__} has no frame in this dialect")

    def _frame(
        self, choice: int, delta: dict[str, Any], logprobs: Sequence[TokenLogprob] = ()
    ) -> bytes:
        told = encode_json(to_logprobs(logprobs)) if logprobs else b"null"
        ending = b',"logprobs":%b,"finish_reason":null}]' % told
        return self._before[choice] + encode_json(delta) + ending + self._after

    def _closing(self, finished: Finished) -> bytes:
        if not self._with_usage:
            return b"data: [DONE]\n\n"
        head = self._completion.head("chat.completion.chunk")
        last = {**head, "choices": [], "usage": to_usage(finished.usage)}
        return b"data: " + encode_json(last) + b"\n\ndata: [DONE]\n\n"
