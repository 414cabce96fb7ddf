"""What takes the place of what probing would have found."""

from __future__ import annotations

from dataclasses import dataclass

from service.formats.segments import SegmentGrammar
from service.formats.tool_syntax import ToolSyntax


@dataclass(frozen=True, slots=True)
class Override:
    """For templates whose source has all `marks`.

    `syntax` is how a call is forced, `segments` how answers are read, `answer_start` what a
    constraint on the answer itself comes after. `shown_tokens` are the control tokens without
    which segments can't be told.
    """

    marks: tuple[str, ...]
    syntax: ToolSyntax
    segments: SegmentGrammar
    answer_start: str
    shown_tokens: tuple[str, ...] = ()
