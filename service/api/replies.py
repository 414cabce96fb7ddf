"""JSON bodies, encoded once and the same way everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

_encoder = msgspec.json.Encoder()
# Legal in JSON, but some clients' line readers break at these three.
_LINE_BREAKS = {"\x85": b"\\u0085", "\u2028": b"\\u2028", "\u2029": b"\\u2029"}
_ESCAPES = tuple((character.encode(), escape) for character, escape in _LINE_BREAKS.items())


def encode_json(value: object) -> bytes:
    """`value` as one line of JSON, whatever reader of lines is at the other end.

    Unpaired surrogates, which no UTF-8 can carry, are written as U+FFFD.
    """
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:
        data = _encoder.encode(without_surrogates(value))
    if not data.isascii():
        for character, escape in _ESCAPES:
            data = data.replace(character, escape)
    return data


def without_surrogates(value: Any) -> Any:
    """`value` with every unpaired surrogate in its strings replaced by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_surrogates(item) for item in value]
    return value


class Json(Response):
    """A JSON reply."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return encode_json(content)
