"""Functionary 3.2 says first to whom it speaks, behind the `>>>` that the prompt ends with:

all
Let me see.>>>get_weather
{"city": "Rome"}>>>get_weather
{"city": "Paris"}
"""

from __future__ import annotations

from service.formats.overrides.override import Override
from service.formats.segments import SegmentGrammar, To
from service.formats.tool_syntax import Kind, ToolSyntax


def _heading(header: str) -> To | str:
    name = header.strip().removeprefix(">>>")
    return To.USER if name == "all" else name


OVERRIDE = Override(
    marks=(">>>all",),
    syntax=ToolSyntax(Kind.NAMED, begin="", middle="\n", between=">>>", end=""),
    segments=SegmentGrammar("\n", (">>>",), _heading, plain=True),
    answer_start="all\n",
)
