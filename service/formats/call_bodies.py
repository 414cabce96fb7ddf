"""One call being written, in each of the ways that models write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from service.domain.chat import Tool
from service.formats.json_scan import ValueScan
from service.formats.tool_syntax import PLACEHOLDER, ArgumentTags, Kind, ToolSyntax

NAME = r"([\w.-]{1,128})(?![\w.-])"
_MAX_HEADER = 512  # characters before a call's name must have been seen
_MAX_SPACE = 64  # of white space before an argument
_ID = r"[\w.:-]+"


class NotACallError(Exception):
    """The text is no call of a tool that there is. Raised only before a name was read."""


class CallBody(Protocol):
    """A call from where its opening markup ends.

    `name` is None until it is known; `take` gives what has become certain of the arguments since
    the last time, JSON text that may break anywhere.
    """

    name: str | None

    def feed(self, text: str) -> str | None:
        """Read on: what is behind the call once it is complete, else None. Raises
        `NotACallError`."""
        ...

    def take(self) -> str: ...


def create_body(syntax: ToolSyntax, tools: Mapping[str, Tool], rest_of_begin: str) -> CallBody:
    """A reader for the call that comes behind `rest_of_begin`, the end of the syntax's opening."""
    if syntax.kind is Kind.JSON:
        return JsonCall(tools, syntax)
    header = f"{loosely(rest_of_begin)}{NAME}{loosely(syntax.middle)}"
    if syntax.kind is Kind.NAMED:
        return NamedCall(tools, header)
    if syntax.tags is None:
        raise ValueError("a syntax with tagged arguments has tags")
    return TaggedCall(tools, header, syntax.tags)


def loosely(literal: str) -> str:
    """A pattern for a literal: with whatever white space, numbers and ids."""
    parts = re.split(r"(\s+|\d+|\0)", literal.strip())
    return rf"\s*{''.join(map(_loose_part, parts))}\s*"


def _loose_part(part: str) -> str:
    if part == PLACEHOLDER:
        return _ID
    if part.isspace():
        return r"\s*"
    return r"\d+" if part.isdigit() and part.isascii() else re.escape(part)


class _Arguments:
    """Arguments on their way out; what a model wrote instead of an object is made one."""

    def __init__(self) -> None:
        self._ready: list[str] = []

    def add(self, text: str) -> None:
        self._ready.append(text)

    def take(self) -> str:
        text = "".join(self._ready)
        self._ready.clear()
        return text


class NamedCall:
    """The name in the markup, the arguments an object: `look>{"city": "Rome"}`."""

    def __init__(self, tools: Mapping[str, Tool], header: str) -> None:
        self.name: str | None = None
        self._tools = tools
        self._header = re.compile(header)
        self._held = ""
        self._scan = ValueScan()
        self._arguments = _Arguments()

    def feed(self, text: str) -> str | None:
        if self.name is None:
            self._held += text
            header, brace, behind = self._held.partition("{")
            if not brace:
                if len(header) > _MAX_HEADER:
                    raise NotACallError
                return None
            match = self._header.fullmatch(header)
            if match is None or match[1] not in self._tools:
                raise NotACallError
            self.name, text = match[1], brace + behind
        stop = self._scan.read(text)
        self._arguments.add(text[:stop])
        return text[stop:] if self._scan.done else None

    def take(self) -> str:
        return self._arguments.take()


class JsonCall:
    """One object with the name and the arguments, in any order, and whatever else is in it."""

    def __init__(self, tools: Mapping[str, Tool], syntax: ToolSyntax) -> None:
        self.name: str | None = None
        self._tools = tools
        self._name_keys = {syntax.name_key, "name"}
        self._arguments_keys = {syntax.arguments_key, "arguments", "parameters"}
        self._held = ""
        self._key: str | None = None
        self._scan: ValueScan | None = None
        self._inside = False
        self._seen_arguments = False
        self._arguments = _Arguments()

    def feed(self, text: str) -> str | None:
        self._held += text
        while True:
            if self._scan is not None:
                if not self._read_value(self._scan):
                    return None
            elif not self._inside:
                if not self._open():
                    return None
            elif self._closes():
                return self._held
            elif not self._read_key():
                return None

    def take(self) -> str:
        return self._arguments.take() if self.name is not None else ""

    def _open(self) -> bool:
        self._held = self._held.lstrip()
        if self._held[:1] == "[":  # a list of calls, though the syntax has none
            self._held = self._held[1:].lstrip()
        if not self._held:
            return False
        if self._held[0] != "{":
            raise NotACallError
        self._inside, self._held = True, self._held[1:]
        return True

    def _closes(self) -> bool:
        self._held = self._held.lstrip(" \t\r\n,")
        if self._held[:1] != "}":
            return False
        if self.name is None:
            raise NotACallError
        if not self._seen_arguments:
            self._arguments.add("{}")
        self._held = self._held[1:]
        return True

    def _read_key(self) -> bool:
        """The next key and its colon; False while they are not all there."""
        if not self._held:
            return False
        match = re.match(r'"((?:[^"\\]|\\.)*)"\s*:\s*(?=\S)', self._held)
        if match is None:
            hopeless = self._held[0] != '"' or len(self._held) > _MAX_HEADER
            if hopeless and self.name is None:
                raise NotACallError
            if hopeless:  # broken JSON behind the name: the object ends here
                self._held = "}" + self._held
                return True
            return False
        known = self._name_keys | self._arguments_keys | {"id", "type", "tool_call_id", "function"}
        if match[1] not in known and self.name is None:
            raise NotACallError
        self._key, self._held = match[1], self._held[match.end() :]
        self._scan = ValueScan()
        return True

    def _read_value(self, scan: ValueScan) -> bool:
        """More of the value that is being read; False while there is more to come."""
        if self._key in self._arguments_keys and self._held[:1] == "{":
            self._seen_arguments = True
        stop = scan.read(self._held)
        if self._key in self._arguments_keys and self._seen_arguments:
            self._arguments.add(self._held[:stop])
        elif scan.done:
            self._keep(self._held[:stop])
        else:
            self._scan = ValueScan()  # it is needed whole: read anew when more of it is there
            return False
        self._held = self._held[stop:]
        if scan.done:
            self._scan = None
        return scan.done

    def _keep(self, value: str) -> None:
        if self._key in self._arguments_keys:  # an object in a string, or none at all
            self._seen_arguments = True
            self._arguments.add("{}" if value == "null" else _unquoted(value) or "{}")
        elif self._key in self._name_keys:
            name = _unquoted(value)
            if name not in self._tools:
                raise NotACallError
            self.name = name


def _unquoted(value: str) -> str:
    """What a JSON string says; anything else as it is."""
    try:
        said = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return said if isinstance(said, str) else value


class TaggedCall:
    """Arguments that are marked up one by one. Text stays text where the tool's schema says so."""

    def __init__(self, tools: Mapping[str, Tool], header: str, tags: ArgumentTags) -> None:
        self.name: str | None = None
        self._tools = tools
        self._header = re.compile(header)
        start, end = re.escape(tags.start.strip()), re.escape(tags.end.strip())
        to_value = "|".join(map(_value_opening, {tags.to_text: 0, tags.to_other: 0}))
        self._argument = re.compile(
            rf"\s*{start}\s*([^<>\"]+?)\s*(?:{to_value})(.*?){end}", re.DOTALL
        )
        self._start, self._end = tags.start.strip(), tags.end.strip()
        self._num_searched = 0
        self._padding = "\n" if tags.to_text.endswith("\n") else ""
        self._held = ""
        self._types: Mapping[str, Any] = {}
        self._num_arguments = 0
        self._arguments = _Arguments()

    def feed(self, text: str) -> str | None:
        self._held += text
        if self.name is None and not self._read_header():
            return None
        while self._in_argument():
            at = self._held.find(self._end, self._num_searched)
            if at < 0:  # long values are not searched twice
                self._num_searched = max(0, len(self._held) - len(self._end) + 1)
                return None
            self._num_searched = at + len(self._end)
            match = self._argument.fullmatch(self._held, 0, self._num_searched)
            if match is not None:
                self._add(match[1], match[2])
                self._held, self._num_searched = self._held[match.end() :], 0
        self._arguments.add("}" if self._num_arguments else "{}")
        return self._held

    def take(self) -> str:
        return self._arguments.take()

    def _in_argument(self) -> bool:
        """Whether an argument is being written, or may be."""
        begun = self._held[: len(self._start) + _MAX_SPACE].lstrip()
        return self._start.startswith(begun[: len(self._start)])

    def _read_header(self) -> bool:
        """Whether the name is there: something other than it or white space has to follow."""
        match = re.match(rf"{self._header.pattern}(?=\S)", self._held)
        if match is None:
            if len(self._held) > _MAX_HEADER:
                raise NotACallError
            return False
        if match[1] not in self._tools:
            raise NotACallError
        self.name, self._held = match[1], self._held[match.end() :]
        self._types = _properties(self._tools[self.name])
        return True

    def _add(self, key: str, value: str) -> None:
        if self._padding:
            value = value.removeprefix(self._padding).removesuffix(self._padding)
        typed = _typed(value, self._types.get(key))
        before = ", " if self._num_arguments else "{"
        self._arguments.add(f"{before}{json.dumps(key, ensure_ascii=False)}: {typed}")
        self._num_arguments += 1


def _value_opening(literal: str) -> str:
    return re.sub(r"\\?\s+", r"\\s*", re.escape(literal.strip()))


def _properties(tool: Tool) -> Mapping[str, Any]:
    properties = json.loads(tool.parameters).get("properties")
    return properties if isinstance(properties, dict) else {}


def _typed(value: str, schema: Any) -> str:
    """A marked-up value as JSON: as its schema says, else as what it looks like."""
    wants_text = isinstance(schema, dict) and schema.get("type") == "string"
    if not wants_text:
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            pass
        else:
            return value.strip()
    return json.dumps(value, ensure_ascii=False)
