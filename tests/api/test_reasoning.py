"""How OpenAI's clients ask for thoughts, and where they are told."""

from __future__ import annotations

from typing import Any

import pytest

from service.api.dialects.openai.reasoning import Thoughts, to_thoughts
from service.api.dialects.openai.schemas import ChatCompletionBody
from service.api.dialects.openai.translate import to_chat_request


def body(**fields: Any) -> ChatCompletionBody:
    hello = {"messages": [{"role": "user", "content": "Hello"}]}
    return ChatCompletionBody.model_validate({**hello, **fields})


@pytest.mark.parametrize(
    ("fields", "thinking", "budget", "thoughts"),
    [
        ({}, None, None, Thoughts.LEFT_OUT),
        ({"reasoning_effort": "none"}, False, None, Thoughts.LEFT_OUT),
        ({"reasoning_effort": "minimal"}, False, None, Thoughts.LEFT_OUT),
        ({"reasoning_effort": "low"}, True, 1024, Thoughts.APART),
        ({"reasoning_effort": "low", "reasoning_budget": 64}, True, 64, Thoughts.APART),
        ({"reasoning_effort": "high"}, True, None, Thoughts.APART),
        ({"reasoning_effort": "high", "reasoning_budget": -1}, True, None, Thoughts.APART),
        ({"reasoning_effort": "high", "reasoning_budget": 0}, False, None, Thoughts.LEFT_OUT),
        ({"reasoning_effort": "high", "include_reasoning": False}, True, None, Thoughts.LEFT_OUT),
        ({"include_reasoning": True}, None, None, Thoughts.APART),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True, None, Thoughts.APART),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False, None, Thoughts.LEFT_OUT),
    ],
    ids=str,
)
def test_all_ways_to_ask(
    fields: dict[str, Any], thinking: bool | None, budget: int | None, thoughts: Thoughts
) -> None:
    asked = body(**fields)
    request = to_chat_request(asked, "r1")
    assert (request.thinking, request.reasoning_budget) == (thinking, budget)
    assert request.reasoning_effort == fields.get("reasoning_effort")
    assert to_thoughts(asked) is thoughts
