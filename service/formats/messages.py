"""Messages as chat templates want them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Protocol

from service.domain.chat import Message, Role, Tool, ToolCall
from service.formats.tool_syntax import ID_LENGTH

_BETWEEN = "\n\n"


class Guard(Protocol):
    """Sees to it that no text speaks as the template does. In the model's `own_words`, markup is
    meant as such; in anybody else's it is only quoted."""

    def __call__(self, value: Any, *, own_words: bool = False) -> Any: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """What a template expects instead of what is usual: contents that are text, arguments that
    are parsed, None where there are no tools, and ids of calls of any length."""

    content_as_parts: bool = False
    arguments_as_text: bool = False
    no_tools_as_list: bool = False
    short_ids: bool = False

    def id(self, call_id: str) -> str:
        """A call's id as the template takes it."""
        if not self.short_ids or len(call_id) == ID_LENGTH:
            return call_id
        digest = sha256(call_id.encode("utf-8", "replace")).hexdigest()
        return digest[:ID_LENGTH]


def fold_system(messages: Sequence[Message], *, first: bool, others: bool) -> list[Message]:
    """Put system messages that a template can't take into the user's next message: those at the
    beginning when `first`, those further on when `others`. Where the model answers first, they
    are one of the user's, so that a later turn begins as the earlier one did."""
    folded: list[Message] = []
    carried: list[str] = []
    at_beginning = True
    for message in messages:
        at_beginning = at_beginning and message.role is Role.SYSTEM
        if message.role is Role.SYSTEM and (first if at_beginning else others):
            carried.append(message.content)
        elif message.role is Role.USER and carried:
            text = _BETWEEN.join([*carried, message.content])
            folded.append(replace(message, content=text))
            carried = []
        else:
            if carried and folded and message.role is Role.ASSISTANT:
                folded.append(Message(Role.USER, _BETWEEN.join(carried)))
                carried = []
            folded.append(message)
    if carried:  # nothing of the user's follows: then it speaks for them
        folded.append(Message(Role.USER, _BETWEEN.join(carried)))
    return folded


def merge_neighbours(messages: Sequence[Message]) -> list[Message]:
    """Make one message of those that follow one another in the same role, as many templates
    insist on turns; the answers of several tools stay apart."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last is None or last.role is not message.role or message.role is Role.TOOL:
            merged.append(message)
            continue
        merged[-1] = replace(
            last,
            content=_BETWEEN.join(text for text in (last.content, message.content) if text),
            reasoning=_BETWEEN.join(text for text in (last.reasoning, message.reasoning) if text),
            tool_calls=last.tool_calls + message.tool_calls,
        )
    return merged


def to_template_messages(
    messages: Sequence[Message], shape: Shape, guard: Guard
) -> list[dict[str, Any]]:
    """Fresh dictionaries, as templates may change them. All text of people has gone through
    `guard`."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_to_template_message(message, shape, guard, names) for message in messages]


def to_template_tools(
    tools: Sequence[Tool], shape: Shape, guard: Guard
) -> list[dict[str, Any]] | None:
    if not tools and not shape.no_tools_as_list:
        return None
    return [
        {
            "type": "function",
            "function": {
                "name": guard(tool.name),
                "description": guard(tool.description),
                "parameters": guard(_parsed(tool.parameters)),
            },
        }
        for tool in tools
    ]


def _to_template_message(
    message: Message, shape: Shape, guard: Guard, names: dict[str, str]
) -> dict[str, Any]:
    content = guard(message.content, own_words=message.role is Role.ASSISTANT)
    told: dict[str, Any] = {
        "role": message.role.value,
        "content": [{"type": "text", "text": content}] if shape.content_as_parts else content,
    }
    if message.reasoning:
        told["reasoning_content"] = guard(message.reasoning, own_words=True)
    if message.tool_calls:
        told["tool_calls"] = [_to_template_call(c, shape, guard) for c in message.tool_calls]
    if message.tool_call_id is not None:
        told["tool_call_id"] = guard(shape.id(message.tool_call_id))
        told["name"] = guard(names.get(message.tool_call_id, ""))
    return told


def _to_template_call(call: ToolCall, shape: Shape, guard: Guard) -> dict[str, Any]:
    arguments = call.arguments if shape.arguments_as_text else _parsed(call.arguments)
    return {
        "id": guard(shape.id(call.id)),
        "type": "function",
        "function": {"name": guard(call.name), "arguments": guard(arguments)},
    }


def _parsed(text: str) -> Any:
    """What the JSON text says; text that is no JSON (a model wrote it) stays as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
