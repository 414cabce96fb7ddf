"""The grammar of an answer that calls tools: what the syntax says, as Lark for llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from service.domain.chat import Tool
from service.domain.constraint import Constraint, ConstraintKind
from service.formats.quoted_grammar import as_lark, quoted_lark
from service.formats.tool_syntax import PLACEHOLDER, ArgumentTags, ToolSyntax

_LOOKAROUND = re.compile(r"\(\?<?[=!]|\\[1-9]")
_TERMINALS = """TEXT: /(.|\\n)*/
ID: /[a-zA-Z0-9]{9}/
"""


def to_constraint(
    syntax: ToolSyntax,
    tools: Sequence[Tool],
    tokens: Collection[str],
    *,
    forced: bool,
    parallel: bool,
    schema: str | None = None,
) -> Constraint | None:
    """What an answer may be: with `forced` the rest of a call whose `begin` has been written, else
    any text, which a call may end. With the JSON text of a `schema` it is either a call, or what
    the schema describes.

    `tokens` are the spellings that are tokens of their own, which no text stands for. None where
    text can't be told from a call before it is too late.
    """
    grammar = _Grammar(syntax, tools, tokens)
    if forced:
        source = grammar.forced(parallel)
    elif schema is not None:
        source = grammar.either(parallel, schema)
    elif syntax.is_bare:
        return None
    else:
        source = grammar.free(parallel)
    # Half a surrogate pair (JSON can spell one in a schema) can't be sent on.
    return Constraint(ConstraintKind.LARK, source.encode("utf-8", "replace").decode())


class _Grammar:
    def __init__(self, syntax: ToolSyntax, tools: Sequence[Tool], tokens: Collection[str]) -> None:
        self._syntax = syntax
        self._tools = tools
        names = sorted((re.escape(token) for token in tokens if token), key=len, reverse=True)
        self._special = re.compile("|".join([*names, PLACEHOLDER]))
        self._rules: list[str] = []

    def forced(self, parallel: bool) -> str:
        return self._source(f"start: {self._calls(parallel)}")

    def free(self, parallel: bool) -> str:
        call = f"{self._until(self._syntax.begin, 'lead')} {self._calls(parallel)}"
        return self._source(f"start: TEXT | called\ncalled: {call}")

    def either(self, parallel: bool, schema: str) -> str:
        call = f"{self._written(self._syntax.begin)} {self._calls(parallel)}"
        rules = f"called: {call}\nanswer: %json {schema}"
        return self._source(f"start: /[ \\n]{{0,2}}/ (called | answer)\n{rules}")

    def _source(self, start: str) -> str:
        return "\n".join([start, *self._rules, _TERMINALS])

    def _calls(self, parallel: bool) -> str:
        """From the first call's name on."""
        options = [self._call(i, tool) for i, tool in enumerate(self._tools)]
        self._rules.append(f"call: {' | '.join(options)}")
        between = self._syntax.between
        more = f"({self._written(between)} call)*" if parallel and between is not None else ""
        return f"call {more} {self._written(self._syntax.end)}"

    def _call(self, index: int, tool: Tool) -> str:
        schema = json.loads(tool.parameters)
        head = self._written(tool.name + self._syntax.middle)
        if tool.grammar is not None:
            arguments = self._text(index, tool.grammar, next(iter(schema["properties"])))
        elif self._syntax.tags is not None:
            arguments = self._tagged(index, schema, self._syntax.tags)
        else:
            arguments = f"arguments_{index}"
            self._rules.append(f"{arguments}: {_json(_as_object(schema), strict=tool.strict)}")
        self._rules.append(f"call_{index}: {head} {arguments}")
        return f"call_{index}"

    def _text(self, index: int, grammar: Constraint, key: str) -> str:
        """The one argument, a text with a grammar of its own."""
        rule, tags = f"text_{index}", self._syntax.tags
        source = as_lark(grammar)
        if tags is None:
            begin, end = _string(json.dumps({key: ""})[:-2]), _string('"}')
            source = quoted_lark(source)
        else:
            begin = self._written(tags.start + key + tags.to_text)
            end = self._written(tags.end)
        self._rules.append(f"{rule}: %lark {{\n{source}\n}}")
        return f"{begin} {rule} {end}"

    def _tagged(self, index: int, schema: dict[str, Any], tags: ArgumentTags) -> str:
        """One argument after the other, in the schema's order."""
        properties, required = schema.get("properties"), schema.get("required")
        properties = properties if isinstance(properties, dict) else {}
        required = required if isinstance(required, list) else []
        arguments = []
        for number, (key, kind) in enumerate(properties.items()):
            rule = f"argument_{index}_{number}"
            part = _with_definitions(kind if isinstance(kind, dict) else {}, schema)
            self._rules.append(f"{rule}: {self._argument(rule, key, part, tags)}")
            arguments.append(rule if key in required else f"{rule}?")
        return " ".join(arguments)

    def _argument(self, rule: str, key: str, schema: dict[str, Any], tags: ArgumentTags) -> str:
        if schema.get("type") != "string":
            head = self._written(tags.start + key + tags.to_other)
            return f"{head} {_json(schema)} {self._written(tags.end)}"
        head = self._written(tags.start + key + tags.to_text)
        if "enum" in schema:
            return f"{head} {self._choices(schema['enum'])} {self._written(tags.end)}"
        return f"{head} {self._until(tags.end, f'{rule}_value')}"

    def _choices(self, words: Sequence[Any]) -> str:
        return f"({' | '.join(self._written(str(word)) for word in words)})"

    def _written(self, literal: str) -> str:
        """A literal as a sequence of strings and tokens."""
        parts: list[str] = []
        at = 0
        for match in self._special.finditer(literal):
            parts += [_string(literal[at : match.start()]), _token(match[0])]
            at = match.end()
        return " ".join(filter(None, [*parts, _string(literal[at:])]))

    def _until(self, literal: str, rule: str) -> str:
        """Any text, and then the literal, where it is seen first."""
        match = self._special.search(literal)
        if match is not None and not literal[: match.start()].strip():
            return f"TEXT {self._written(literal.lstrip())}"
        first, rest = (
            (literal, "")
            if match is None
            else (
                literal[: match.start()],
                literal[match.start() :],
            )
        )
        trigger, space, behind = first.lstrip().partition("\n")
        self._rules.append(f"{rule}[lazy]: TEXT {_string(trigger)}")
        return f"{rule} {self._written(space + behind + rest)}"


def _token(spelling: str) -> str:
    """As the engine names tokens in grammars."""
    if spelling == PLACEHOLDER:
        return "ID"
    return spelling if spelling[0] == "<" and spelling[-1] == ">" else f"<{spelling.strip('[]')}>"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _json(schema: dict[str, Any], *, strict: bool = False) -> str:
    # Spaces where models are taught to put them; without, small ones fill the answer with them.
    options = {
        "lenient": not strict,
        "whitespace_flexible": False,
        "item_separator": ", ?",
        "key_separator": ": ?",
    }
    kept = schema if strict else _without_lookaround(schema)
    return f"%json {json.dumps({**kept, 'x-guidance': options}, ensure_ascii=False)}"


def _without_lookaround(schema: Any) -> Any:
    """The schema without those expressions that no grammar can hold text to."""
    if isinstance(schema, list):
        return [_without_lookaround(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_lookaround(value)
        for key, value in schema.items()
        if not (key == "pattern" and isinstance(value, str) and _LOOKAROUND.search(value))
    }


def _as_object(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments: an object with what the schema names, and nothing else unless it says so."""
    if "$ref" in schema:
        return schema
    closed = {"additionalProperties": False} if "properties" in schema else {}
    return {**closed, **schema, "type": "object"}


def _with_definitions(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """A part of a schema with the definitions that it may refer to."""
    return schema | {key: root[key] for key in ("$defs", "definitions") if key in root}
