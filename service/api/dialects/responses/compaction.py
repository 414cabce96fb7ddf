"""Conversations made short: what stays of them, and the one item that stands for the rest."""

from __future__ import annotations

import base64
import binascii
import json
import time
import zlib
from collections.abc import Iterable

from service.api.dialects.responses.output import Wire, to_usage
from service.api.items import Item, new_id
from service.domain.errors import InvalidRequest
from service.domain.events import Usage

_MAX_SUMMARY_BYTES = 1024 * 1024
_KEPT_ROLES = ("user", "system", "developer")


def to_compaction(items: Iterable[Item], summary: str, usage: Usage) -> Wire:
    """The vendor's reply: messages that were not the model's stay, in front of the summary."""
    kept = [one for one in items if one["type"] == "message" and one.get("role") in _KEPT_ROLES]
    packed = {"type": "compaction", "id": new_id("cmp"), "encrypted_content": packed_text(summary)}
    return {
        "id": new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*kept, packed],
        "usage": to_usage(usage),
    }


def packed_text(summary: str) -> str:
    """Opaque to clients, who only send it back. No secret: it is theirs."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(summary).encode())).decode()


def unpacked_text(packed: str | None, where: str) -> str:
    """Raises `InvalidRequest` for what was not packed here."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(base64.urlsafe_b64decode(packed or ""), _MAX_SUMMARY_BYTES)
        summary = json.loads(data)
    except (ValueError, RecursionError, binascii.Error, zlib.error):
        summary = None
    if not isinstance(summary, str):
        raise InvalidRequest(
            f"{where}.encrypted_content was not made by this service; send what "
            "/v1/responses/compact answered.",
            param=f"{where}.encrypted_content",
        )
    return summary
