"""From what a constraint says to a grammar in llguidance's words, or to the sentence why not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest

# Where JSON allows white space: one space, or a new line with its indentation. A model that could
# write any amount of it sometimes writes nothing else.
_SPACE = r"( |\n[ \t]{0,20})"

_MAX_CHOICES = 1024
_MAX_REASON = 300

_NOUNS = {
    ConstraintKind.JSON_SCHEMA: "JSON schema",
    ConstraintKind.REGEX: "regular expression",
    ConstraintKind.LARK: "Lark grammar",
    ConstraintKind.GBNF: "GBNF grammar",
    ConstraintKind.CHOICE: "list of choices",
}

# A regular expression's error is drawn over several lines, the reason in the last of them.
_CAUSE = re.compile(r"^error: (.*)$", re.MULTILINE)

_MEANINGS = {"NoExtensionBias": "nothing satisfies it"}

_KEYWORDS = re.compile(r"^Unimplemented keys: (\[.*\])")


def to_grammar(constraint: Constraint) -> str:
    """The grammar, not yet compiled. Raises `InvalidRequest` for what can't be read."""
    return _READERS[constraint.kind](constraint.source)


def refusal(kind: ConstraintKind, reason: str) -> InvalidRequest:
    """One sentence for what llguidance says about a grammar of ours."""
    noun = _NOUNS[kind]
    unknown = _KEYWORDS.match(reason)
    if unknown:
        names = ", ".join(json.loads(unknown[1]))
        return InvalidRequest(f"The {noun} uses {names}, which is not supported.")
    cause = _CAUSE.search(reason)
    first = cause[1] if cause else reason.split("\n", maxsplit=1)[0]
    first = _MEANINGS.get(first, first).strip().rstrip(".")
    if len(first) > _MAX_REASON:
        first = f"{first[:_MAX_REASON]}…"
    return InvalidRequest(f"The {noun} can't be followed: {first}.")


def _json_schema(source: str) -> str:
    schema = _decoded(source, ConstraintKind.JSON_SCHEMA)
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise InvalidRequest("The JSON schema must be an object or true.")
    if "x-guidance" in schema:  # it would change what the keywords mean
        raise InvalidRequest("The JSON schema uses x-guidance, which is not supported.")
    # The base of relative references: there is nothing beyond the document itself.
    schema = {name: value for name, value in schema.items() if name not in ("$id", "$schema")}
    try:
        return LLMatcher.grammar_from_json_schema(
            msgspec.json.encode(schema).decode(),
            overrides={
                "whitespace_pattern": _SPACE,
                "item_separator": ",",
                "key_separator": ":",
                "coerce_one_of": False,
                "lenient": False,
            },
        )
    except ValueError as error:
        raise refusal(ConstraintKind.JSON_SCHEMA, str(error)) from error


def _gbnf(source: str) -> str:
    try:
        return LLMatcher.grammar_from_lark(gbnf_to_lark(source))
    except GbnfToLarkError as error:
        raise refusal(ConstraintKind.GBNF, str(error)) from error
    except RecursionError as error:
        raise refusal(ConstraintKind.GBNF, "it is too deeply nested") from error
    except (LookupError, ValueError) as error:  # what the converter makes of a text that breaks off
        raise refusal(ConstraintKind.GBNF, "it is not GBNF") from error


def _choice(source: str) -> str:
    """Each string is a literal of a Lark rule; its escapes are those of JSON."""
    choices = _decoded(source, ConstraintKind.CHOICE)
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise InvalidRequest("The list of choices must be a JSON array of strings.")
    if not 0 < len(choices) <= _MAX_CHOICES:
        raise InvalidRequest(
            f"The list of choices has {len(choices)} entries; it must have 1 to {_MAX_CHOICES}."
        )
    literals = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    return LLMatcher.grammar_from_lark(f"start: {literals}")


def _decoded(source: str, kind: ConstraintKind) -> object:
    try:
        return msgspec.json.decode(source)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"The {_NOUNS[kind]} is not JSON: {error}.") from error


_READERS: Mapping[ConstraintKind, Callable[[str], str]] = {
    ConstraintKind.JSON_SCHEMA: _json_schema,
    ConstraintKind.REGEX: LLMatcher.grammar_from_regex,
    ConstraintKind.LARK: LLMatcher.grammar_from_lark,
    ConstraintKind.GBNF: _gbnf,
    ConstraintKind.CHOICE: _choice,
}
