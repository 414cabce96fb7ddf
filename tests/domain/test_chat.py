"""Requests that cannot be invalid."""

from __future__ import annotations

from typing import Any

import pytest

from service.domain.chat import ChatRequest, Message, Role, Tool
from service.domain.errors import InvalidRequest

HELLO = (Message(Role.USER, "Hello"),)


def test_a_request_needs_only_messages() -> None:
    request = ChatRequest(HELLO)
    assert (request.model, request.max_tokens, request.thinking) == (None, None, None)
    assert request.sampling.temperature == 1.0


@pytest.mark.parametrize(
    ("wrong", "param", "sentence"),
    [
        ({"messages": ()}, "messages", "messages is empty; send at least one."),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be at least 1."),
        ({"stop": ("x",) * 17}, "stop", "stop has 17 strings; at most 16 are accepted."),
        ({"stop": ("",)}, "stop", "each stop string must have 1 to 512 characters."),
        ({"stop": ("x" * 513,)}, "stop", "each stop string must have 1 to 512 characters."),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    wrong: dict[str, Any], param: str, sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatRequest(**{"messages": HELLO, **wrong})
    assert (caught.value.param, caught.value.message) == (param, sentence)


def test_tools_are_neither_too_many_nor_too_large() -> None:
    many = tuple(Tool(f"tool{number}") for number in range(129))
    with pytest.raises(InvalidRequest, match="tools has 129 entries; at most 128 are accepted"):
        ChatRequest(HELLO, tools=many)
    ChatRequest(HELLO, tools=many[1:])
    large = (Tool("a", description="a" * 200_000),)
    with pytest.raises(InvalidRequest, match=r"200002 characters .* at most 196608 are accepted"):
        ChatRequest(HELLO, tools=large)
