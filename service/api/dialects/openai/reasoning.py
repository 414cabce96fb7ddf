"""Thinking before answering: how a request asks for it, and where the thoughts go."""

from __future__ import annotations

from enum import Enum
from typing import Any

from service.api.dialects.openai.schemas import ChatCompletionBody
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.events import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta

_EFFORTS_WITHOUT_THINKING = ("none", "minimal")
_EFFORTS = (*_EFFORTS_WITHOUT_THINKING, "low", "medium", "high", "xhigh", "max")
_LOW_BUDGET = 1024  # for models that don't know the word themselves
_OPENING, _CLOSING = "<think>\n", "\n</think>\n\n"


class Thoughts(Enum):
    """What becomes of the model's thoughts: nothing, a field beside `content`, or that and the
    beginning of `content`, between tags."""

    LEFT_OUT = 0
    APART = 1
    IN_TEXT = 2


def to_thinking(body: ChatCompletionBody) -> bool | None:
    """All ways to ask for it; None where the client asked in none."""
    options = dict(body.chat_template_kwargs or {})
    asked = options.pop("enable_thinking", None)
    if options:
        name = next(iter(options))[:40]
        raise Unsupported(
            f"chat_template_kwargs has {name!r}; only 'enable_thinking' is supported.",
            param="chat_template_kwargs",
        )
    if asked is not None and not isinstance(asked, bool):
        raise InvalidRequest(
            "chat_template_kwargs.enable_thinking must be true or false.",
            param="chat_template_kwargs",
        )
    if body.reasoning_budget == 0:
        return False
    effort = to_effort(body)
    if asked is None and effort is not None:
        return effort not in _EFFORTS_WITHOUT_THINKING
    return asked


def to_effort(body: ChatCompletionBody) -> str | None:
    effort = body.reasoning_effort
    if effort is not None and effort not in _EFFORTS:
        raise InvalidRequest(
            f"reasoning_effort is {effort[:40]!r}; it must be one of {', '.join(_EFFORTS)}.",
            param="reasoning_effort",
        )
    return effort


def to_budget(body: ChatCompletionBody) -> int | None:
    """Tokens of a thought; None for as many as it takes, which llama.cpp's clients write as -1."""
    budget = body.reasoning_budget
    if budget is not None and budget < -1:
        raise InvalidRequest(
            f"reasoning_budget is {budget}; it must be at least 0, or -1 for no limit.",
            param="reasoning_budget",
        )
    if budget is None and body.reasoning_effort == "low":
        return _LOW_BUDGET
    return budget if budget is not None and budget > 0 else None


def to_thoughts(body: ChatCompletionBody) -> Thoughts:
    """Whether the client asked to see them."""
    wanted = body.include_reasoning
    if wanted is None:
        wanted = to_thinking(body) is True
    return Thoughts.APART if wanted else Thoughts.LEFT_OUT


def with_thought(reasoning: str, text: str) -> str:
    """The answer behind its thought, if there is one."""
    return f"{_OPENING}{reasoning}{_CLOSING}{text}" if reasoning else text


class ThoughtTags:
    """Puts one streamed thought between its tags, as `with_thought` does."""

    def __init__(self) -> None:
        self._open = False

    def delta(self, event: Event) -> dict[str, Any] | None:
        """What the event adds; None where it adds nothing."""
        if isinstance(event, ReasoningDelta):
            opening = "" if self._open else _OPENING
            self._open = True
            return {"content": opening + event.text, "reasoning_content": event.text}
        if not self._open or not isinstance(event, TextDelta | ToolCallDelta | Finished):
            return None
        self._open = False
        return {"content": _CLOSING}
