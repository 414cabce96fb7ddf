"""Tools as OpenAI speaks of them, in what is asked for and in what is answered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.api.dialects.openai.schemas import (
    AllowedToolsBody,
    ChatCompletionBody,
    FunctionBody,
    NamedTool,
)
from service.domain.chat import Tool, ToolCall, ToolChoice, ToolMode
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.events import ToolCallDelta

_CHOICES = "'auto', 'none', 'required', a function's name, or allowed_tools"


def to_tools(body: ChatCompletionBody) -> tuple[Tool, ...]:
    """The functions that may be called. Raises `InvalidRequest`, and `Unsupported` for tools of
    another kind."""
    for index, tool in enumerate(body.tools or ()):
        if tool.type != "function":
            raise Unsupported(
                f"tools[{index}].type is {tool.type[:40]!r}; only 'function' is supported.",
                param=f"tools[{index}].type",
            )
        if tool.function is None:
            raise InvalidRequest(
                f"tools[{index}].function is missing.", param=f"tools[{index}].function"
            )
    return tuple(_to_tool(tool.function) for tool in body.tools or () if tool.function)


def _to_tool(function: FunctionBody) -> Tool:
    return Tool.from_schema(
        function.name,
        function.description or "",
        function.parameters or {},
        strict=bool(function.strict),
    )


def to_tool_choice(body: ChatCompletionBody) -> ToolChoice:
    """Raises `InvalidRequest` for what is none of the vendor's choices."""
    choice = body.tool_choice
    if choice is None:
        return ToolChoice()
    if isinstance(choice, str):
        if choice not in set(ToolMode):
            raise InvalidRequest(
                f"tool_choice is {choice[:40]!r}; it must be {_CHOICES}.", param="tool_choice"
            )
        return ToolChoice(ToolMode(choice))
    if choice.allowed_tools is not None:
        return _to_allowed(choice.allowed_tools)
    if choice.function is None:
        raise InvalidRequest(
            f"tool_choice names no function; it must be {_CHOICES}.", param="tool_choice"
        )
    return ToolChoice(ToolMode.REQUIRED, (choice.function.name,))


def _to_allowed(allowed: AllowedToolsBody) -> ToolChoice:
    if allowed.mode not in ("auto", "required"):
        raise InvalidRequest(
            f"tool_choice.allowed_tools.mode is {allowed.mode[:40]!r}; it must be 'auto' or "
            "'required'.",
            param="tool_choice.allowed_tools.mode",
        )
    names = _names_in(allowed.tools)
    # None are allowed: that is another way to say it.
    return ToolChoice(ToolMode(allowed.mode) if names else ToolMode.NONE, names)


def _names_in(tools: Iterable[NamedTool]) -> tuple[str, ...]:
    return tuple(tool.function.name for tool in tools if tool.function is not None)


def to_call_replies(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def to_call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    """The vendor's client joins strings: id, type and name are said once, in a call's first
    frame."""
    if delta.name is None:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
