"""Tools for models whose template has no words for them: everything is told as text.

A history reads as if the model had always called tools in the syntax that it is told to use:

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Rome"}}
    </tool_call>

and what tools answer is what the user says next, between `<tool_response>` tags.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from service.domain.chat import Message, Role, Tool
from service.formats.tool_syntax import ToolSyntax

_INTRODUCTION = (
    "You can call the functions below where they help to answer. To call one, write a JSON object "
    "with its name and its arguments between <tool_call> tags, and nothing after it:\n"
    '<tool_call>\n{"name": "the function\'s name", "arguments": {"an argument": "its value"}}\n'
    "</tool_call>\n"
    "What it returned then comes between <tool_response> tags. Where no function helps, just "
    "answer.\n\nThe functions:"
)


def describe(tools: Sequence[Tool]) -> Message:
    """The tools, and how to call them."""
    return Message(Role.SYSTEM, "\n".join([_INTRODUCTION, *map(_described, tools)]))


def calls_as_text(messages: Sequence[Message], syntax: ToolSyntax) -> list[Message]:
    """The messages with calls as what the model wrote."""
    return [_written(message, syntax) if message.tool_calls else message for message in messages]


def results_as_text(messages: Sequence[Message]) -> list[Message]:
    """The messages with what tools answered as what the user said."""
    return [_said(message) if message.role is Role.TOOL else message for message in messages]


def said_with_results(messages: Sequence[Message]) -> list[Message]:
    """The messages with what the user said directly behind a tool's answer as part of that."""
    told: list[Message] = []
    for message in messages:
        last = told[-1] if told else None
        if message.role is Role.USER and last is not None and last.role is Role.TOOL:
            told[-1] = replace(last, content=f"{last.content}\n\n{message.content}")
        else:
            told.append(message)
    return told


def _described(tool: Tool) -> str:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": json.loads(tool.parameters),
    }
    return json.dumps(function, ensure_ascii=False)


def _said(message: Message) -> Message:
    return Message(Role.USER, f"<tool_response>\n{message.content}\n</tool_response>")


def _written(message: Message, syntax: ToolSyntax) -> Message:
    text = "\n\n".join(filter(None, [message.content, syntax.write(message.tool_calls)]))
    return replace(message, content=text, tool_calls=())
