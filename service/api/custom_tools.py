"""OpenAI's custom tools, which take text where functions take an object. Pure.

A model is told of a function with one argument, the text; what it writes for it is unwrapped while
it is being written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from service.domain.chat import Tool
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest

INPUT = "input"
_SCHEMA = {
    "type": "object",
    "properties": {INPUT: {"type": "string"}},
    "required": [INPUT],
    "additionalProperties": False,
}
_SYNTAXES = {"lark": ConstraintKind.LARK, "regex": ConstraintKind.REGEX}
_HEAD = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HEAD_LETTERS = '{"input":"'
_HEX = "[0-9a-fA-F]"
_HIGH = rf"\\u[dD][89abAB]{_HEX}{{2}}"
# What a string may be made of, halves of a character only together with what follows them.
_WHOLE = re.compile(
    rf'(?:[^"\\]|\\[^u]|(?!{_HIGH})\\u{_HEX}{{4}}|{_HIGH}\\u{_HEX}{{4}}|{_HIGH}(?=[^\\]|\\[^u]))+'
)


def to_custom_tool(name: str, description: str, form: Mapping[str, Any] | None, where: str) -> Tool:
    """A tool that takes text of the form, which is a grammar, or any text where it is None.
    `where` is what the request calls the form. Raises `InvalidRequest`."""
    return Tool(name, description, json.dumps(_SCHEMA), grammar=_to_grammar(form, where))


def _to_grammar(form: Mapping[str, Any] | None, where: str) -> Constraint | None:
    kind = "text" if form is None else form.get("type")
    if form is None or kind == "text":
        return None
    if kind != "grammar":
        raise InvalidRequest(
            f"{where}.type is {str(kind)[:40]!r}; it must be 'text' or 'grammar'.",
            param=f"{where}.type",
        )
    inner = form.get("grammar")
    told = inner if isinstance(inner, Mapping) else form  # the vendor has it both ways
    syntax, definition = told.get("syntax"), told.get("definition")
    if not isinstance(syntax, str) or syntax not in _SYNTAXES:
        raise InvalidRequest(
            f"{where}.syntax is {str(syntax)[:40]!r}; it must be 'lark' or 'regex'.",
            param=f"{where}.syntax",
        )
    if not isinstance(definition, str) or not definition:
        raise InvalidRequest(f"{where}.definition is missing.", param=f"{where}.definition")
    return Constraint(_SYNTAXES[syntax], definition)


def to_arguments(text: str) -> str:
    """What a model wrote that called with this text."""
    return json.dumps({INPUT: text}, ensure_ascii=False)


def to_input(arguments: str) -> str:
    """The text of a whole call."""
    reader = InputReader()
    return reader.feed(arguments) + reader.finish()


class InputReader:
    """The text of a call out of its arguments, while they are written. Arguments of another shape,
    which a model writes that is held to nothing, are the text themselves."""

    def __init__(self) -> None:
        self._held = ""
        self._inside: bool | None = None  # None until the arguments have shown their shape
        self._done = False

    def feed(self, arguments: str) -> str:
        """What of the text has become certain."""
        self._held += arguments
        if self._inside is None:
            self._begin()
        if self._inside is None or self._done:
            return ""
        if not self._inside:
            return self._take(len(self._held))
        piece = _WHOLE.match(self._held)
        text = _unescaped(self._take(piece.end())) if piece else ""
        self._done = self._held.startswith('"')
        return text

    def finish(self) -> str:
        """What was held back, now that there is no more."""
        return self._take(len(self._held)) if self._inside is None else ""

    def _begin(self) -> None:
        if head := _HEAD.match(self._held):
            self._inside = True
            self._take(head.end())
        elif not _HEAD_LETTERS.startswith("".join(self._held.split())):
            self._inside = False

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken


def _unescaped(piece: str) -> str:
    try:
        text: str = json.loads(f'"{piece}"', strict=False)
    except ValueError:  # an escape that JSON has not
        return piece
    return text
