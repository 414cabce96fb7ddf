"""Answers in segments, each of which says to whom or what it is: thought, answer, or a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from service.domain.chat import Tool
from service.domain.events import ReasoningDelta, TextDelta, ToolCallDelta
from service.formats.call_parser import new_call_id

Deltas = list[TextDelta | ReasoningDelta | ToolCallDelta]
_MAX_HEADER = 256  # what has no header by then is an answer


class To(Enum):
    """Whom a segment without a tool's name is for."""

    USER = 0
    ITSELF = 1


Heading = Callable[[str], To | str]
"""What a segment's header says: a tool's name, or whom the segment is for."""


@dataclass(frozen=True, slots=True)
class SegmentGrammar:
    """Where headers end, what ends a segment's text, and what headers say. `plain` boundaries may
    also be something that the model talks about."""

    header_end: str
    boundaries: tuple[str, ...]
    heading: Heading
    plain: bool = False


class SegmentParser:
    """Text in, deltas out. It begins within a header.

    A call of an unknown tool is text and, where boundaries are plain, so are they and the header:
    nobody meant them as such. Calls beyond `max_calls` are dropped.
    """

    def __init__(
        self,
        grammar: SegmentGrammar,
        tools: Iterable[Tool],
        max_calls: int | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._header_end = grammar.header_end
        self._boundaries = grammar.boundaries
        self._heading = grammar.heading
        self._plain = grammar.plain
        self._tools = {tool.name for tool in tools}
        self._max_calls = max_calls
        self._new_id = new_id
        self._held = ""
        self._boundary = ""
        self._in_header = True
        self._to: To | str = To.USER
        self.num_calls = 0
        self.thought: bool | None = None

    @property
    def thinking(self) -> bool:
        return self._to is To.ITSELF and not self._in_header

    def feed(self, text: str) -> Deltas:
        began_in_thought = self.thinking
        self._held += text
        deltas: Deltas = []
        while True:
            held, in_header = self._held, self._in_header
            deltas += self._read_header() if in_header else self._read_segment()
            if self._in_header is in_header and self._held in ("", held):
                break
        self.thought = True if began_in_thought else (None if self._in_header else self.thinking)
        return deltas

    def finish(self) -> Deltas:
        """What was held back; a header that was only begun is nothing, unless it may be text."""
        held, self._held = self._held, ""
        if self._in_header and self._plain:
            return self._told(self._boundary + held)
        if self._in_header and any(boundary in held for boundary in self._boundaries):
            return []
        return self._told(held)

    def _read_header(self) -> Deltas:
        at = self._held.find(self._header_end)
        if 0 <= at <= _MAX_HEADER:
            to = self._heading(self._held[:at])
            stop = at + len(self._header_end)
            header, self._held = self._held[:stop], self._held[stop:]
            if self._plain and not isinstance(to, To) and to not in self._tools:
                self._in_header = False
                return self._told(self._boundary + header)
            return self._begin(to)
        if len(self._held) > _MAX_HEADER + len(self._header_end):
            return self._begin(To.USER)
        return []

    def _begin(self, to: To | str) -> Deltas:
        self._in_header = False
        self._to = to if isinstance(to, To) or to in self._tools else To.USER
        if isinstance(self._to, To):
            return []
        self.num_calls += 1
        if self._max_calls is not None and self.num_calls > self._max_calls:
            return []
        return [ToolCallDelta(self.num_calls - 1, self._new_id(), self._to)]

    def _read_segment(self) -> Deltas:
        found = [(at, -len(b), b) for b in self._boundaries if (at := self._held.find(b)) >= 0]
        if found:
            at, _, boundary = min(found)
            text, self._held = self._held[:at], self._held[at + len(boundary) :]
            self._in_header, self._boundary = True, boundary
            return self._told(text)
        certain = len(self._held) - self._uncertain()
        text, self._held = self._held[:certain], self._held[certain:]
        return self._told(text)

    def _uncertain(self) -> int:
        longest = max(map(len, self._boundaries)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(boundary.startswith(self._held[-length:]) for boundary in self._boundaries):
                return length
        return 0

    def _told(self, text: str) -> Deltas:
        if not text:
            return []
        if self._to is To.ITSELF:
            return [ReasoningDelta(text)]
        if self._to is To.USER:
            return [TextDelta(text)]
        if self._max_calls is not None and self.num_calls > self._max_calls:
            return []
        return [ToolCallDelta(self.num_calls - 1, arguments=text)]
