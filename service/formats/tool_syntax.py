"""How a model writes tool calls: found out by letting its template write some."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile

from service.domain.chat import Tool, ToolCall

ID_LENGTH = 9  # the one length that strict templates take
PLACEHOLDER = "\0"
"""Stands in a literal where a call's id does."""

_FIRST = ToolCall("xidAAAAAx", "x_tool_a", '{"x_word": "x_value_a", "x_number": 70701}')
_SECOND = ToolCall("xidBBBBBx", "x_tool_b", '{"x_word": "x_value_b", "x_number": 80802}')
_PARAMETERS = """{"type": "object", "required": ["x_word"], "properties":
{"x_word": {"type": "string"}, "x_number": {"type": "integer"}}}"""
PROBES = (_FIRST, _SECOND)
PROBED_TOOLS = tuple(Tool(call.name, "x_description", _PARAMETERS) for call in PROBES)
ANSWER = "xAnswerx"
_LAST_OBJECT = re.compile(r'\{[^{}]*"(\w+)"\s*:\s*"$')
_NEXT_KEY = re.compile(r'^"\s*,\s*"(\w+)"\s*:\s*$')
_THOUGHT = re.compile(r"^\s*<think>\s*</think>\s*")


class Kind(Enum):
    """How a call holds its name and its arguments.

    `JSON`: one object has both, `{"name": "look", "arguments": {…}}`. `NAMED`: the name stands in
    the markup, the arguments are an object, `<function=look>{…}`. `TAGGED`: each argument is
    marked up, `<function=look><parameter=city>Rome</parameter>`.
    """

    JSON = 0
    NAMED = 1
    TAGGED = 2


@dataclass(frozen=True, slots=True)
class ArgumentTags:
    """The markup of one argument, in order: `start` KEY `to_text` or `to_other` VALUE `end`."""

    start: str
    to_text: str
    to_other: str
    end: str


@dataclass(frozen=True, slots=True)
class ToolSyntax:
    """The literals around calls: `begin` NAME `middle` ARGUMENTS, `between` NAME `middle`
    ARGUMENTS, …, `end`.

    `between` is None where a model makes one call at a time. White space in literals is how the
    model was taught, not what it always does. With `tags`, `middle` is what comes between the name
    and the first argument. `name_key` and `arguments_key` are those of a JSON call. `aliases`
    begin a call just as well.
    """

    kind: Kind
    begin: str
    middle: str
    between: str | None
    end: str
    name_key: str = "name"
    arguments_key: str = "arguments"
    tags: ArgumentTags | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_bare(self) -> bool:
        """Whether nothing but a JSON object tells a call from an answer."""
        return self.kind is Kind.JSON and not outside(self.begin).strip("[ \n")

    def write(self, calls: tuple[ToolCall, ...]) -> str:
        """Calls of a history as the text that the model would have written."""
        written = [f"{call.name}{self.middle}{call.arguments}" for call in calls]
        return self.begin + (self.between or self.end + "\n" + self.begin).join(written) + self.end


IN_TEXT = ToolSyntax(
    Kind.JSON,
    begin='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    between='}\n</tool_call>\n<tool_call>\n{"name": "',
    end="}\n</tool_call>",
)
"""What most models know, and what others are told."""


def outside(literal: str) -> str:
    """A literal of a JSON call without what belongs to its objects: the rest of the one before,
    and the beginning of the one behind it."""
    head = literal.rfind("{")
    literal = literal[:head] if head >= 0 else literal
    return literal[literal.find("}") + 1 :]


@dataclass(frozen=True, slots=True)
class Specimens:
    """What a template wrote after the question: a plain `answer`, `one` call, `two` calls (nothing
    where it refuses), and the `opening` that it begins answers with."""

    answer: str
    opening: str
    one: str
    two: str


def find_syntax(specimens: Specimens) -> ToolSyntax | None:
    """The syntax that explains the specimens; None where there is none that we could read."""
    one = _body_of(specimens.one, specimens)
    at = one.find(_FIRST.name)
    if at < 0:
        return None
    begin = _THOUGHT.sub("", one[:at]).lstrip()
    rest = one[at + len(_FIRST.name) :]
    arguments = _first_json(rest)
    if arguments is None:
        return _find_tagged(begin, rest, specimens)
    start, stop = arguments
    if not begin:
        return None
    middle, end = _as_literal(rest[:start]), _as_literal(rest[stop:].rstrip())
    begin = _as_literal(begin)
    between = _between(specimens, lambda text: (found := _first_json(text)) and found[1])
    keys = _LAST_OBJECT.search(begin), _NEXT_KEY.match(middle)
    if not (keys[0] and keys[1]):
        return ToolSyntax(Kind.NAMED, begin, middle, between, end)
    return ToolSyntax(
        *(Kind.JSON, begin, middle, between, end),
        name_key=keys[0][1],
        arguments_key=keys[1][1],
    )


def _body_of(written: str, specimens: Specimens) -> str:
    """What the model itself wrote of `written`: neither the template's opening, nor its closing."""
    answer = specimens.answer.partition(ANSWER)
    opening = max(
        _common_start(written, specimens.opening), _common_start(written, answer[0]), key=len
    )
    tag = opening.rfind("<")
    if tag >= 0 and ">" not in opening[tag:]:
        opening = opening[:tag]  # both go on with a tag, but not the same one
    closing = _common_end(written, answer[2])
    stop = len(written) - len(closing)
    tag = written.rfind("<", len(opening), stop)
    if tag >= 0 and closing and ">" not in written[tag:stop] and ">" in closing:
        stop = tag
    return written[len(opening) : stop]


def _first_json(text: str) -> tuple[int, int] | None:
    """Where the first probe's arguments stand as JSON."""
    at = text.find("{")
    while at >= 0:
        try:
            value, length = json.JSONDecoder().raw_decode(text[at:])
        except ValueError:
            return None
        if isinstance(value, dict) and value.keys() == {"x_word", "x_number"}:
            return at, at + length
        at = text.find("{", at + 1)
    return None


def _between(specimens: Specimens, end_of_arguments: Callable[[str], int | None]) -> str | None:
    """What stands between the first call's arguments and the second call's name."""
    first, _, behind = specimens.two.partition(_FIRST.name)
    stop = end_of_arguments(behind)
    if not first or stop is None:
        return None
    at = behind.find(_SECOND.name, stop)
    return _as_literal(behind[stop:at]) if at >= 0 else None


def _common_start(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return one[: sum(1 for _ in pairs)]


def _common_end(one: str, other: str) -> str:
    return _common_start(one[::-1], other[::-1])[::-1]


def _as_literal(text: str) -> str:
    for call in PROBES:
        text = text.replace(call.id, PLACEHOLDER)
    return text


def _find_tagged(begin: str, rest: str, specimens: Specimens) -> ToolSyntax | None:
    """Arguments one by one: `rest` is what follows the name."""
    places = [rest.find(word) for word in ("x_word", "x_value_a", "x_number", "70701")]
    if min(places) < 0 or places != sorted(places):
        return None
    to_word = rest[: places[0]]
    to_text = rest[places[0] + len("x_word") : places[1]]
    to_next = rest[places[1] + len("x_value_a") : places[2]]
    to_other = rest[places[2] + len("x_number") : places[3]]
    behind = rest[places[3] + len("70701") :]
    shared = _common_end(to_word, to_next)
    start = shared[min((at for at in map(shared.find, "< \n") if at >= 0), default=0) :]
    close = to_next[: len(to_next) - len(start)]
    if not (begin and start.strip() and close.strip() and behind.startswith(close)):
        return None
    if '"' in start + to_text and '"' in close:  # quoted values are another language
        return None
    between = _between(specimens, lambda text: text.find("70701") + len("70701"))
    return ToolSyntax(
        Kind.TAGGED,
        begin=_as_literal(begin),
        middle=to_word[: len(to_word) - len(start)],
        between=between.removeprefix(close) if between else None,
        end=behind.removeprefix(close).rstrip(),
        tags=ArgumentTags(start, to_text, to_other, close),
    )
