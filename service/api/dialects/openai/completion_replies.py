"""From what generations of text yield to OpenAI's older replies and frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.dialects.openai.replies import Completion, to_usage
from service.api.errors import Problem
from service.api.openai_errors import to_error_body
from service.api.replies import encode_json
from service.chat.generate import Answer
from service.domain.events import (
    Event,
    Finished,
    FinishReason,
    OfChoice,
    TextDelta,
    TokenLogprob,
    Usage,
)

_KIND = "text_completion"


def to_text_reply(
    completion: Completion,
    answers: Sequence[Answer],
    echoes: Sequence[str],
    usage: Usage,
    *,
    with_logprobs: bool,
) -> dict[str, Any]:
    """`echoes` are what the answers begin with."""
    choices = [
        {
            "text": echo + answer.text,
            "index": index,
            "logprobs": _to_logprobs(answer.logprobs, 0) if with_logprobs else None,
            "finish_reason": _to_word(answer.finished),
        }
        for index, (answer, echo) in enumerate(zip(answers, echoes, strict=True))
    ]
    return {**completion.head(_KIND), "choices": choices, "usage": to_usage(usage)}


class TextFrames:
    """One streamed answer for each of `echoes`, which is its first frame where it isn't empty."""

    def __init__(
        self, completion: Completion, echoes: Sequence[str], *, with_usage: bool = False
    ) -> None:
        self._head = completion.head(_KIND)
        self._echoes = echoes
        self._with_usage = with_usage
        self._lengths = [0] * len(echoes)

    def opening(self) -> bytes:
        return b"".join(self._frame(i, echo) for i, echo in enumerate(self._echoes) if echo)

    def event(self, event: Event) -> bytes:
        if isinstance(event, OfChoice):
            return self._of_choice(event.choice, event.event)
        if isinstance(event, Finished):
            ending = self._of_choice(0, event) if len(self._echoes) == 1 else b""
            return ending + self._closing(event)
        return self._of_choice(0, event)

    def failure(self, problem: Problem) -> bytes:
        """An error frame and no `[DONE]`: the vendor's client raises it."""
        return b"data: " + encode_json(to_error_body(problem)) + b"\n\n"

    def _of_choice(self, choice: int, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            logprobs = None
            if event.logprobs:
                logprobs = _to_logprobs(event.logprobs, self._lengths[choice])
            self._lengths[choice] += len(event.text)
            return self._frame(choice, event.text, logprobs)
        if isinstance(event, Finished):
            return self._frame(choice, "", finish_reason=_to_word(event))
        raise TypeError(f"{type(event).__name__} has no frame in this dialect")

    def _frame(
        self,
        choice: int,
        text: str,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        told = {
            "text": text,
            "index": choice,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        frame = {**self._head, "choices": [told]}
        if self._with_usage:
            frame["usage"] = None
        return b"data: " + encode_json(frame) + b"\n\n"

    def _closing(self, finished: Finished) -> bytes:
        if not self._with_usage:
            return b"data: [DONE]\n\n"
        last = {**self._head, "choices": [], "usage": to_usage(finished.usage)}
        return b"data: " + encode_json(last) + b"\n\ndata: [DONE]\n\n"


def _to_word(finished: Finished) -> str:
    return "stop" if finished.reason is FinishReason.STOP else "length"


def _to_logprobs(logprobs: Sequence[TokenLogprob], start: int) -> dict[str, Any]:
    """`start` is where the first of the tokens begins, in characters of the answer."""
    tokens = [one.chosen.text.decode("utf-8", "replace") for one in logprobs]
    offsets, at = [], start
    for token in tokens:
        offsets.append(at)
        at += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [one.chosen.logprob for one in logprobs],
        "top_logprobs": [
            {other.text.decode("utf-8", "replace"): other.logprob for other in one.top}
            for one in logprobs
        ],
        "text_offset": offsets,
    }
