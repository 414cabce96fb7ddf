"""Tools as Responses speaks of them: functions, custom tools, and namespaces of both. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.api.custom_tools import to_custom_tool
from service.api.dialects.responses.schemas import NamedTool, ResponseBody, ToolBody
from service.api.hosted_tools import Hosted, disclosed, refuse_or_leave_out
from service.domain.chat import Tool, ToolChoice, ToolMode
from service.domain.errors import InvalidRequest, Unsupported

_CALLABLE = ("function", "custom")
_BETWEEN = "."  # a namespace and a name, as the model knows them


@dataclass(frozen=True, slots=True)
class Offered:
    """What the client calls a tool that the model knows by one name."""

    tool: Tool
    name: str
    namespace: str | None
    is_custom: bool


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of a request; `hosted` are those that nobody runs here."""

    offered: tuple[Offered, ...] = ()
    hosted: tuple[Hosted, ...] = ()
    by_name: dict[str, Offered] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {one.tool.name: one for one in self.offered})

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(one.tool for one in self.offered)

    @property
    def headers(self) -> dict[str, str]:
        return disclosed(self.hosted)

    def known_as(self, name: str) -> str:
        """What the model calls a tool that the client may name without its namespace."""
        if name in self.by_name:
            return name
        within = [one.tool.name for one in self.offered if one.name == name]
        return within[0] if len(within) == 1 else name


def known_name(namespace: str | None, name: str) -> str:
    """What the model calls a tool."""
    return f"{namespace}{_BETWEEN}{name}" if namespace else name


def to_toolbox(body: ResponseBody) -> Toolbox:
    """Raises `InvalidRequest`, and `Unsupported` where what is left out was asked for."""
    offered, hosted = [], []
    for where, namespace, tool in _flat(body.tools or ()):
        if tool.type in _CALLABLE:
            offered.append(_to_offered(tool, namespace, where))
        else:
            hosted.append(Hosted(tool.type, where))
    choice = body.tool_choice
    refuse_or_leave_out(
        hosted,
        alone=not offered and choice != "none",
        accepted="functions and custom tools",
        demanded=choice.type if isinstance(choice, NamedTool) else None,
    )
    return Toolbox(tuple(offered), tuple(hosted))


def _flat(tools: Sequence[ToolBody]) -> Iterator[tuple[str, str | None, ToolBody]]:
    """Each tool with its place and its namespace."""
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if tool.type != "namespace":
            yield where, None, tool
            continue
        if not tool.name:
            raise InvalidRequest(f"{where}.name is missing.", param=f"{where}.name")
        for number, inner in enumerate(tool.tools or ()):
            yield f"{where}.tools[{number}]", tool.name, inner


def _to_offered(tool: ToolBody, namespace: str | None, where: str) -> Offered:
    if not tool.name:
        raise InvalidRequest(f"{where}.name is missing.", param=f"{where}.name")
    name, description = known_name(namespace, tool.name), tool.description or ""
    if tool.type == "custom":
        made = to_custom_tool(name, description, tool.format, f"{where}.format")
        return Offered(made, tool.name, namespace, is_custom=True)
    strict = tool.strict is True
    made = Tool.from_schema(name, description, tool.parameters or {}, strict=strict)
    return Offered(made, tool.name, namespace, is_custom=False)


def to_tool_choice(choice: str | NamedTool | None, toolbox: Toolbox) -> ToolChoice:
    """Raises `InvalidRequest`, and `Unsupported` for what is no tool of the client's."""
    if choice is None:
        return ToolChoice()
    if isinstance(choice, str):
        if choice not in set(ToolMode):
            raise InvalidRequest(
                f"tool_choice is {choice[:40]!r}; it must be 'auto', 'none', 'required', a "
                "function's name, or allowed_tools.",
                param="tool_choice",
            )
        return ToolChoice(ToolMode(choice))
    if choice.type == "allowed_tools":
        names = tuple(toolbox.known_as(tool.name) for tool in choice.tools or () if tool.name)
        mode = ToolMode.REQUIRED if choice.mode == "required" else ToolMode.AUTO
        if mode is ToolMode.REQUIRED and choice.tools and not names:
            raise Unsupported(
                f"tool_choice demands {choice.tools[0].type[:40]!r}, which nobody runs here.",
                param="tool_choice",
            )
        return ToolChoice(mode if names else ToolMode.NONE, names)
    if choice.type not in _CALLABLE or not choice.name:
        raise Unsupported(
            f"tool_choice.type is {choice.type[:40]!r}; it may only name a function or a custom "
            "tool.",
            param="tool_choice",
        )
    name = known_name(choice.namespace, choice.name)
    return ToolChoice(ToolMode.REQUIRED, (toolbox.known_as(name),))
