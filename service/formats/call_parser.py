"""An answer told from the tool calls in it, while both are being written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from uuid import uuid4

from service.domain.chat import Tool
from service.domain.events import TextDelta, ToolCallDelta
from service.formats.call_bodies import CallBody, NotACallError, create_body
from service.formats.tool_syntax import PLACEHOLDER, Kind, ToolSyntax, outside

Deltas = list[TextDelta | ToolCallDelta]


class _State(Enum):
    BEGINNING = 0
    TEXT = 1
    CALL = 2
    AFTER = 3  # behind a call: another one, the closing markup, or text


def new_call_id() -> str:
    return f"call_{uuid4().hex[:24]}"


class CallParser:
    """Text in, text and calls out; the same ones wherever the text breaks.

    White space between text and calls is dropped. What looks like a call, but is none of a tool
    that there is, stays text. A call that the text's end cuts short keeps what there was of its
    arguments. Calls beyond `max_calls` are dropped.
    """

    def __init__(
        self,
        syntax: ToolSyntax,
        tools: Iterable[Tool],
        max_calls: int | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._syntax = syntax
        self._tools = {tool.name: tool for tool in tools}
        self._max_calls = max_calls
        self._new_id = new_id
        self._markers = _markers(syntax)
        self._closings = _Closings(syntax)
        self._state = _State.BEGINNING if syntax.kind is Kind.JSON else _State.TEXT
        self._held = ""
        self._body: CallBody | None = None
        self._opened = ""  # what led to the call that is being read
        self._unnamed = ""  # what there is of it, until its name is known
        self._named = False
        self._behind_call = False
        self.num_calls = 0

    def feed(self, text: str) -> Deltas:
        self._held += text
        deltas: Deltas = []
        while True:
            state, held = self._state, self._held
            deltas += self._STEPS[state](self)
            if self._state is state and self._held in ("", held):
                return deltas

    def finish(self) -> Deltas:
        """What was held back, now that there is no more."""
        held, self._held = self._held, ""
        if self._state is _State.AFTER:
            return []  # closing markup that was begun
        if self._state is _State.CALL:
            return [] if self._named else self._text(self._opened + self._unnamed)
        return self._text(held)

    def _text(self, text: str) -> Deltas:
        if self._behind_call:
            text = text.lstrip()
        if not text:
            return []
        self._behind_call = False
        return [TextDelta(text)]

    def _begin(self) -> Deltas:
        """A JSON object right at the beginning may be a call without its markup."""
        start = self._held.lstrip()
        if start:
            self._state = _State.TEXT
            if start[0] in "{[":
                self._open(len(self._held) - len(start), "")
        return []

    def _read_text(self) -> Deltas:
        found = [(at, -len(m), m) for m in self._markers if (at := self._held.find(m)) >= 0]
        if found:
            at, _, marker = min(found)
            before = self._held[:at].rstrip()
            self._held = self._held[len(before) :]
            self._open(at - len(before) + len(marker), self._markers[marker])
            return self._text(before)
        certain = self._held[: len(self._held) - self._uncertain()].rstrip()
        self._held = self._held[len(certain) :]
        return self._text(certain)

    def _uncertain(self) -> int:
        """Length of the longest end that may become a marker."""
        longest = max((len(marker) for marker in self._markers), default=1)
        for length in range(min(longest - 1, len(self._held)), 0, -1):
            if any(marker.startswith(self._held[-length:]) for marker in self._markers):
                return length
        return 0

    def _open(self, length: int, rest_of_begin: str) -> None:
        """A call begins behind the first `length` characters of what is held."""
        self._state = _State.CALL
        self._opened, self._held = self._held[:length], self._held[length:]
        self._unnamed, self._named = "", False
        self._body = create_body(self._syntax, self._tools, rest_of_begin)

    def _read_call(self) -> Deltas:
        body = self._body
        if body is None:
            raise RuntimeError("a call is read only once it has been opened")
        text, self._held = self._held, ""
        if not self._named:
            self._unnamed += text
        try:
            behind = body.feed(text)
        except NotACallError:
            self._state, self._held = _State.TEXT, self._unnamed
            return self._text(self._opened)
        deltas = self._told(body)
        if behind is not None:
            self._state, self._held, self._behind_call = _State.AFTER, behind, True
        return deltas

    def _told(self, body: CallBody) -> Deltas:
        if body.name is None:
            return []
        call_id = name = None
        if not self._named:
            self._named = True
            self.num_calls += 1
            call_id, name = self._new_id(), body.name
        arguments = body.take()
        if self._max_calls is not None and self.num_calls > self._max_calls:
            return []
        if name is None and not arguments:
            return []
        return [ToolCallDelta(self.num_calls - 1, call_id, name, arguments)]

    def _read_after(self) -> Deltas:
        held, closings = self._held, self._closings
        if not held.strip():
            return []
        if stop := closings.between.match(held) or closings.next_object(held):
            self._open(stop, closings.rest_of_begin)
        elif not closings.may_match(held):
            self._state, self._held = _State.TEXT, held[closings.end.match(held) :]
        return []

    _STEPS: Mapping[_State, Callable[[CallParser], Deltas]] = {
        _State.BEGINNING: _begin,
        _State.TEXT: _read_text,
        _State.CALL: _read_call,
        _State.AFTER: _read_after,
    }


class _Literal:
    """A literal, whatever the white space in it."""

    def __init__(self, literal: str) -> None:
        self._letters = "".join(literal.split())

    def match(self, text: str) -> int:
        """Where it ends at the beginning of `text`; 0 where it is not, or not all there."""
        num_matched = 0
        for at, char in enumerate(text):
            if num_matched == len(self._letters):
                return at
            if char.isspace():
                continue
            if char != self._letters[num_matched]:
                return 0
            num_matched += 1
        return len(text) if self._letters and num_matched == len(self._letters) else 0

    def may_grow(self, text: str) -> bool:
        """Whether `text` is the beginning of it, but not all of it."""
        letters = "".join(text.split())
        return letters != self._letters and self._letters.startswith(letters)


class _Closings:
    """What may stand behind a call."""

    def __init__(self, syntax: ToolSyntax) -> None:
        is_json = syntax.kind is Kind.JSON
        between, end = syntax.between or "", syntax.end
        if is_json:
            between, end = outside(between), outside(end)
        between, placeholder, rest = between.partition(PLACEHOLDER)
        self.rest_of_begin = placeholder + rest
        self.between = _Literal(between)
        self.end = _Literal(end)
        self._is_json = is_json
        # Models also put calls side by side, or in a list, where their syntax does not.
        self._separators = "; \t\r\n," if end.lstrip().startswith("]") else "; \t\r\n,]"

    def next_object(self, text: str) -> int:
        """Where the next call's object begins that has no markup of its own; else 0."""
        start = len(text) - len(text.lstrip(self._separators))
        return start if self._is_json and text[start : start + 1] == "{" else 0

    def may_match(self, text: str) -> bool:
        """Whether more of `text` could still make it something else than it is now."""
        separates = self._is_json and not text.strip(self._separators)
        return separates or self.end.may_grow(text) or self.between.may_grow(text)


def _markers(syntax: ToolSyntax) -> dict[str, str]:
    """What a call begins with, each with what is left of the opening behind it."""
    markers = dict.fromkeys(syntax.aliases, "")
    if syntax.kind is Kind.JSON:
        marker = outside(syntax.begin).strip().removesuffix("[").rstrip()
        return markers | ({marker: ""} if marker else {})
    opening, placeholder, rest = syntax.begin.partition(PLACEHOLDER)
    words = opening.split(None, 1)
    markers[words[0]] = " ".join(words[1:]) + placeholder + rest
    if inner := re.search(r"\s(<[^<]{3,})$", syntax.begin):
        markers[inner[1]] = ""  # models forget the outer tag
    return markers
