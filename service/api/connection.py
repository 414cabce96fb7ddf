"""A connection as uvicorn has it, with an end to how large a request's head may be, and how slow.

nginx sees to both where it stands in front; on the service's own port nobody else does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
HEAD_SECONDS = 15.0

_REFUSAL = (
    "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n"
    "content-length: {length}\r\nconnection: close\r\n\r\n{sentence}"
)


class HeadTooLargeError(Exception):
    """Ends the parsing of a request."""


class Connection(HttpToolsProtocol):
    """One client's. A head that is too large or too slow is refused before anybody reads it."""

    head_seconds = HEAD_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""  # until a message begins; what begins none is refused, too
        self._in_head = True
        self._head_bytes = 0
        self._too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse_size()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._too_late is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if num_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise HeadTooLargeError
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers where the parser gave up, because of us or by itself."""
        num_bytes = len(self.url)
        num_bytes += sum(len(name) + len(value) for name, value in self.headers or ())
        if num_bytes > MAX_HEAD_BYTES // 2 or len(self.headers or ()) > MAX_HEADERS:
            self._refuse_size()
        else:
            super().send_400_response(msg)

    def _await_head(self) -> None:
        self._too_late = self.loop.call_later(self.head_seconds, self._refuse_slowness)

    def _stop_waiting(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _refuse_slowness(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # an answer is under way; the next request may wait
            return
        self._too_late = None
        if self._head_bytes == 0:  # browsers open connections that they may never need
            self.transport.close()
            return
        self._refuse("408 Request Timeout", f"No request came within {self.head_seconds:g} s.")

    def _refuse_size(self) -> None:
        self._refuse(
            "431 Request Header Fields Too Large",
            f"The address and headers may have {MAX_HEADERS} lines and {MAX_HEAD_BYTES} bytes.",
        )

    def _refuse(self, status: str, sentence: str) -> None:
        if not self.transport.is_closing():
            reply = _REFUSAL.format(status=status, length=len(sentence), sentence=sentence)
            self.transport.write(reply.encode())
            self.transport.close()
