"""OpenAI's published schema as a referee. It lies beside the checkout, not in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

PATH = Path(__file__).parents[3] / "shared" / "spec" / "openai-openapi.json"
VARIABLE = "OPENAI_OPENAPI"
_URI = "urn:published"


class Published:
    """The schemas of a published OpenAPI document, by name."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.version: str = document["info"]["version"]
        self._paths: dict[str, Any] = document["paths"]
        resource = Resource.from_contents(_allowing_null(document), DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)
        self._validators: dict[str, jsonschema.Draft202012Validator] = {}

    def check(self, name: str, value: Any) -> None:
        """Fails with the first contradiction between `value` and the schema `name`."""
        if name not in self._validators:
            schema = {"$ref": f"{_URI}#/components/schemas/{name}"}
            self._validators[name] = jsonschema.Draft202012Validator(
                schema, registry=self._registry
            )
        self._validators[name].validate(value)

    def schema_of(self, method: str, path: str, kind: str) -> str | None:
        """What a good reply to a request of `path`, below `/v1`, is to follow; None where nothing
        is said of it. `kind` is its content type."""
        for template in self._matching(path):
            replies = self._paths[template].get(method.lower(), {}).get("responses", {})
            schema = replies.get("200", {}).get("content", {}).get(kind, {}).get("schema", {})
            if "$ref" in schema:
                name: str = schema["$ref"].rpartition("/")[2]
                return name
        return None

    def _matching(self, path: str) -> Iterator[str]:
        """Paths of the document, those without placeholders first."""
        wanted = path.split("/")
        for template in sorted(self._paths, key=lambda template: template.count("{")):
            parts = template.split("/")
            if len(parts) == len(wanted) and all(
                part == word or part.startswith("{")
                for part, word in zip(parts, wanted, strict=True)
            ):
                yield template


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


def place_of_schema() -> Path:
    """Where the vendor's document is, if it is anywhere."""
    return Path(os.environ.get(VARIABLE, PATH))


@cache
def load_published(path: Path) -> Published | None:
    """The document at `path`; None where there is none."""
    return Published(json.loads(path.read_text())) if path.exists() else None


@pytest.fixture(scope="session")
def published() -> Published:
    found = load_published(place_of_schema())
    if found is None:
        pytest.skip(f"the vendor's schema is not at {place_of_schema()}")
    return found
