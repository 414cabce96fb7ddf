"""OpenAI's open models speak in channels, and a call is a message to a function:

    <|channel|>analysis<|message|>I need the weather.<|end|><|start|>assistant<|channel|>commentary
    to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>

    <|channel|>analysis<|message|>That is easy.<|end|><|start|>assistant<|channel|>final<|message|>
    Hello!<|return|>

(Each of the two is one line.) The recipient may also come before the channel. Commentary to nobody
is for the user, as is the final channel.
"""

from __future__ import annotations

import re

from service.formats.overrides.override import Override
from service.formats.segments import SegmentGrammar, To
from service.formats.tool_syntax import Kind, ToolSyntax

_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_CHANNEL = re.compile(r"<\|channel\|>(\w+)")


def _heading(header: str) -> To | str:
    recipient = _RECIPIENT.search(header)
    if recipient is not None:
        return recipient[1]
    # Where a header begins behind the boundary, the channel's name comes first.
    channel = _CHANNEL.search(header)
    name = channel[1] if channel is not None else header.strip()
    return To.ITSELF if name.startswith("analysis") else To.USER


OVERRIDE = Override(
    marks=("<|channel|>", "<|message|>", "analysis"),
    syntax=ToolSyntax(
        Kind.NAMED,
        begin="<|channel|>commentary to=functions.",
        middle=" <|constrain|>json<|message|>",
        between=None,
        end="",
    ),
    segments=SegmentGrammar(
        header_end="<|message|>",
        boundaries=("<|end|>", "<|start|>", "<|channel|>", "<|return|>", "<|call|>"),
        heading=_heading,
    ),
    answer_start="<|channel|>final<|message|>",
    shown_tokens=("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>"),
)
