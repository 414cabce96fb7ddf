"""What went over the wire while somebody else's client spoke."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2


@dataclass
class Exchange:
    """One request and its reply; `pieces` come in while the reply is read."""

    method: str
    path: str
    is_anthropic: bool
    status: int
    kind: str
    pieces: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def frames(self) -> list[tuple[str, Any]]:
        """Names and data of the server-sent events that are there whole; `[DONE]` has no data."""
        found: list[tuple[str, Any]] = []
        for block in self.body.decode().replace("\r\n", "\n").split("\n\n")[:-1]:
            lines = block.split("\n")
            name = "".join(line[6:].strip() for line in lines if line.startswith("event:"))
            data = "\n".join(line[5:].lstrip() for line in lines if line.startswith("data:"))
            if data:
                found.append((name, None if data == "[DONE]" else json.loads(data)))
        return found


class Recorder(httpx2.BaseTransport):
    """Sends requests as usual, and keeps what comes back."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        kind = response.headers.get("content-type", "").partition(";")[0]
        exchange = Exchange(
            request.method,
            request.url.path,
            "anthropic-version" in request.headers,
            response.status_code,
            kind,
        )
        self.exchanges.append(exchange)
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Kept(response.stream, exchange.pieces)
        return response

    def close(self) -> None:
        self._inner.close()


class _Kept(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, pieces: list[bytes]) -> None:
        self._stream = stream
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._pieces.append(piece)
            yield piece

    def close(self) -> None:
        self._stream.close()
