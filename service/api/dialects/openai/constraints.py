"""What an answer is to look like: the vendor's `response_format`, and what others call it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from service.api.dialects.openai.schemas import ChatCompletionBody, ResponseFormat
from service.domain.constraint import Constraint, ConstraintKind
from service.domain.errors import InvalidRequest, Unsupported

_ANY_OBJECT = {"type": "object"}
_FORMATS = "'text', 'json_object' and 'json_schema'"


def to_constraint(body: ChatCompletionBody) -> Constraint | None:
    """What the body asks for; None where any text will do. A schema is held to whether it is
    called strict or not. Raises `InvalidRequest`, `Unsupported`."""
    asked = list(_asked(body))
    if len(asked) > 1:
        names = " and ".join(name for name, _ in asked)
        raise InvalidRequest(
            f"{names} both say what the answer is to look like; send one of them.",
            param=asked[1][0],
        )
    return asked[0][1] if asked else None


def _asked(body: ChatCompletionBody) -> Iterator[tuple[str, Constraint]]:
    """Each field that asks for a form, by its name."""
    form = _of_format(body.response_format) if body.response_format is not None else None
    if form is not None:
        yield "response_format", form
    for name in ("json_schema", "guided_json"):
        if (schema := getattr(body, name)) is not None:
            yield name, _of_schema(schema)
    if body.grammar:
        yield "grammar", Constraint(ConstraintKind.GBNF, body.grammar)
    if body.guided_regex:
        yield "guided_regex", Constraint(ConstraintKind.REGEX, body.guided_regex)
    if body.guided_choice:
        yield "guided_choice", Constraint(ConstraintKind.CHOICE, json.dumps(body.guided_choice))


def _of_format(form: ResponseFormat) -> Constraint | None:
    if form.type == "text":
        return None
    if form.type == "json_object":
        return _of_schema(_ANY_OBJECT if form.schema_ is None else form.schema_)
    if form.type != "json_schema":
        raise Unsupported(
            f"response_format.type is {form.type[:40]!r}; {_FORMATS} are supported.",
            param="response_format.type",
        )
    if form.json_schema is None:
        raise InvalidRequest(
            "response_format.json_schema is missing; its type says that there is one.",
            param="response_format.json_schema",
        )
    schema = form.json_schema.schema_
    return _of_schema(_ANY_OBJECT if schema is None else schema)


def _of_schema(schema: object) -> Constraint:
    """Some clients send the schema as text."""
    source = schema if isinstance(schema, str) else json.dumps(schema)
    return Constraint(ConstraintKind.JSON_SCHEMA, source)
