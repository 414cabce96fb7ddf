"""Tools as OpenAI speaks of them, in what is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from service.api.custom_tools import to_arguments, to_custom_tool
from service.api.dialects.openai.schemas import (
    AllowedToolsBody,
    ChatCompletionBody,
    FunctionBody,
    NamedTool,
    ToolBody,
    ToolCallBody,
    ToolChoiceBody,
)
from service.api.hosted_tools import Hosted, hosted_among, refuse_or_leave_out
from service.domain.chat import Tool, ToolCall, ToolChoice, ToolMode
from service.domain.errors import InvalidRequest

_CALLABLE = ("function", "custom")
_CHOICES = "'auto', 'none', 'required', a function's name, or allowed_tools"


def to_tools(body: ChatCompletionBody) -> tuple[Tool, ...]:
    """The tools that the client runs. Raises `InvalidRequest`, and `Unsupported` where one of
    another kind is asked for."""
    hosted = hosted_tools(body)
    choice = body.tool_choice
    refuse_or_leave_out(
        hosted,
        alone=len(hosted) == len(body.tools or ()) and choice != "none",
        accepted="'function' and 'custom'",
        demanded=choice.type if isinstance(choice, ToolChoiceBody) else None,
    )
    return tuple(
        _to_tool(tool, f"tools[{index}]")
        for index, tool in enumerate(body.tools or ())
        if tool.type in _CALLABLE
    )


def hosted_tools(body: ChatCompletionBody) -> tuple[Hosted, ...]:
    """Those that nobody runs here."""
    return hosted_among((tool.type for tool in body.tools or ()), _CALLABLE)


def custom_tools(body: ChatCompletionBody) -> frozenset[str]:
    """The names of those that take text."""
    return frozenset(tool.custom.name for tool in body.tools or () if tool.custom is not None)


def _to_tool(tool: ToolBody, where: str) -> Tool:
    if tool.type == "custom" and tool.custom is not None:
        custom, place = tool.custom, f"{where}.custom.format"
        return to_custom_tool(custom.name, custom.description or "", custom.format, place)
    if tool.type == "custom" or tool.function is None:
        raise InvalidRequest(f"{where}.{tool.type} is missing.", param=f"{where}.{tool.type}")
    return _to_function(tool.function)


def _to_function(function: FunctionBody) -> Tool:
    return Tool.from_schema(
        function.name,
        function.description or "",
        function.parameters or {},
        strict=bool(function.strict),
    )


def to_call(call: ToolCallBody) -> ToolCall:
    """A call of earlier, as the model wrote it."""
    if call.type == "custom" and call.custom is not None:
        return ToolCall(call.id, call.custom.name, to_arguments(call.custom.input))
    if call.function is None:
        raise InvalidRequest("a tool call says no function.", param="messages")
    return ToolCall(call.id, call.function.name, call.function.arguments)


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
    named = choice.function or choice.custom
    if named is None:
        raise InvalidRequest(
            f"tool_choice names no function; it must be {_CHOICES}.", param="tool_choice"
        )
    return ToolChoice(ToolMode.REQUIRED, (named.name,))


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
    named = (tool.function or tool.custom for tool in tools)
    return tuple(one.name for one in named if one is not None)
