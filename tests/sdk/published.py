"""OpenAI's published schema as a referee. It lies beside the checkout, not in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

PATH = Path(__file__).parents[3] / "shared" / "spec" / "openai-openapi.json"
_URI = "urn:published"


class Published:
    """The schemas of a published OpenAPI document, by name."""

    def __init__(self, document: dict[str, Any]) -> None:
        resource = Resource.from_contents(_allowing_null(document), DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)

    def check(self, name: str, value: Any) -> None:
        """Fails with the first contradiction between `value` and the schema `name`."""
        schema = {"$ref": f"{_URI}#/components/schemas/{name}"}
        jsonschema.Draft202012Validator(schema, registry=self._registry).validate(value)


def _allowing_null(schema: Any) -> Any:
    """The older `nullable: true`, in today's words."""
    if isinstance(schema, list):
        return [_allowing_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    translated = {key: _allowing_null(value) for key, value in schema.items()}
    if translated.get("nullable") is True:
        return {"anyOf": [translated, {"type": "null"}]}
    return translated


@pytest.fixture(scope="session")
def published() -> Published:
    if not PATH.exists():
        pytest.skip(f"the vendor's schema is not at {PATH}")
    return Published(json.loads(PATH.read_text()))
