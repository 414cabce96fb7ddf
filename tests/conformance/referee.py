"""Whether what went over the wire is what the vendors publish."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import jsonschema
import pydantic
from anthropic.types import ErrorResponse, Message, MessageTokensCount, ModelInfo
from anthropic.types import RawMessageStreamEvent as StreamEvent

from tests.conformance.recording import Exchange
from tests.sdk.published import Published

_STREAM_EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(StreamEvent)
_MESSAGES: dict[str, type[pydantic.BaseModel]] = {
    "/v1/messages": Message,
    "/v1/messages/count_tokens": MessageTokensCount,
}


class Contradiction(AssertionError):
    """A body or frame that its vendor's schema does not allow."""


def judge(exchange: Exchange, published: Published | None) -> None:
    """Raises `Contradiction`. What OpenAI publishes is only looked at where it is given."""
    try:
        if exchange.is_anthropic:
            _judge_anthropic(exchange)
        elif published is not None:
            _judge_openai(exchange, published)
    except (jsonschema.ValidationError, pydantic.ValidationError) as error:
        where = f"{exchange.method} {exchange.path} ({exchange.status})"
        raise Contradiction(f"{where}: {_reason(error)}") from error


def _judge_openai(exchange: Exchange, published: Published) -> None:
    if exchange.status >= 400:
        published.check("ErrorResponse", json.loads(exchange.body))
        return
    path = exchange.path.removeprefix("/v1")
    is_stream = exchange.kind == "text/event-stream"
    if is_stream and exchange.method == "GET":  # the document says nothing of these
        path, method = "/responses", "POST"
    else:
        method = exchange.method
    name = published.schema_of(method, path, exchange.kind)
    if name is None and is_stream:  # nor of the streams of plain completions
        name = published.schema_of(method, path, "application/json")
    if name is None:
        return
    if is_stream and path == "/completions":
        _check_texts(exchange, name, published)
        return
    values = [data for _, data in exchange.frames()] if is_stream else [json.loads(exchange.body)]
    for value in values:
        if value is not None:
            published.check(
                "ErrorResponse" if "error" in value and is_stream and "type" not in value else name,
                _plain(value),
            )


def _check_texts(exchange: Exchange, name: str, published: Published) -> None:
    """The document has one schema for whole texts and for pieces, in which a text has always come
    to its end; the vendor's own pieces say null."""
    for _, data in exchange.frames():
        for choice in (data or {}).get("choices", []):
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        if data is not None:
            published.check(name, data)


def _judge_anthropic(exchange: Exchange) -> None:
    if exchange.status >= 400:
        ErrorResponse.model_validate_json(exchange.body, strict=True)
    elif exchange.kind == "text/event-stream":
        for name, data in exchange.frames():
            if data is not None and name not in ("ping", "error"):
                _STREAM_EVENT.validate_json(json.dumps(data), strict=True)
    elif exchange.path in _MESSAGES:
        _MESSAGES[exchange.path].model_validate_json(exchange.body, strict=True)
    elif exchange.path.startswith("/v1/models"):
        told = json.loads(exchange.body)
        for model in told.get("data", [told]):
            ModelInfo.model_validate_json(json.dumps(model), strict=True)


def _plain(value: Any) -> Any:
    """Vectors as the schema knows them, which has no word of the base64 that clients ask for."""
    if not isinstance(value, dict) or value.get("object") != "list":
        return value
    entries = [
        {**entry, "embedding": _floats(entry["embedding"])}
        if isinstance(entry, dict) and isinstance(entry.get("embedding"), str)
        else entry
        for entry in value.get("data", [])
    ]
    return {**value, "data": entries}


def _floats(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _reason(error: jsonschema.ValidationError | pydantic.ValidationError) -> str:
    if isinstance(error, pydantic.ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    deepest = error
    while deepest.context:
        deepest = max(deepest.context, key=lambda inner: len(inner.absolute_path))
    return f"{'.'.join(map(str, deepest.absolute_path))}: {deepest.message[:200]}"
