"""Tools as Anthropic speaks of them, in what is asked for and in what is answered."""

from __future__ import annotations

import json
from typing import Any

from service.api.dialects.anthropic.schemas import CountTokensBody, ToolBody
from service.api.hosted_tools import Hosted, hosted_among, refuse_or_leave_out
from service.domain.chat import Tool, ToolCall, ToolChoice, ToolMode
from service.domain.errors import InvalidRequest

_CALLABLE = (None, "custom")
_MODES = {
    "auto": ToolMode.AUTO,
    "any": ToolMode.REQUIRED,
    "tool": ToolMode.REQUIRED,
    "none": ToolMode.NONE,
}


def to_tools(body: CountTokensBody) -> tuple[Tool, ...]:
    """The client's tools. Raises `InvalidRequest`, and `Unsupported` where one is asked for that
    the vendor's own servers run."""
    hosted, choice = hosted_tools(body), body.tool_choice
    named = [t.type for t in body.tools or () if choice and choice.name and t.name == choice.name]
    refuse_or_leave_out(
        hosted,
        alone=len(hosted) == len(body.tools or ()) and not (choice and choice.type == "none"),
        accepted="'custom'",
        demanded=named[0] if named else None,
    )
    return tuple(_to_tool(tool) for tool in body.tools or () if tool.type in _CALLABLE)


def hosted_tools(body: CountTokensBody) -> tuple[Hosted, ...]:
    """Those that nobody runs here."""
    return hosted_among((tool.type for tool in body.tools or ()), _CALLABLE)


def _to_tool(tool: ToolBody) -> Tool:
    schema, strict = tool.input_schema or {}, bool(tool.strict)
    return Tool.from_schema(tool.name or "", tool.description or "", schema, strict=strict)


def to_tool_choice(body: CountTokensBody) -> ToolChoice:
    """Raises `InvalidRequest`."""
    choice = body.tool_choice
    if choice is None:
        return ToolChoice()
    if choice.type not in _MODES:
        raise InvalidRequest(
            f"tool_choice.type is {choice.type[:40]!r}; it must be one of {', '.join(_MODES)}.",
            param="tool_choice.type",
        )
    if choice.type != "tool":
        return ToolChoice(_MODES[choice.type])
    if not choice.name:
        raise InvalidRequest("tool_choice.name is missing.", param="tool_choice.name")
    return ToolChoice(ToolMode.REQUIRED, (choice.name,))


def allows_several(body: CountTokensBody) -> bool:
    return body.tool_choice is None or body.tool_choice.disable_parallel_tool_use is not True


def to_use_id(call_id: str) -> str:
    """A call's id, spelled as the vendor's are."""
    return f"toolu_{call_id.removeprefix('call_')}"


def to_use_block(call: ToolCall) -> dict[str, Any]:
    """A call of a whole answer. What is no object, because the answer was cut short, is told as
    the text that it is."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        return {"type": "text", "text": f"{call.name}: {call.arguments}"}
    return {
        "type": "tool_use",
        "id": to_use_id(call.id),
        "name": call.name,
        "input": arguments,
    }
