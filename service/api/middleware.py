"""What happens to every request before and after its route. Plain ASGI classes, outermost first:
`Requests`, `InternalErrors`, `SecurityHeaders`, `access.Access`, `BodyLimit`, `BodyDeadline`.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from service.api.errors import CLIENT_GONE, ErrorReplies, internal_problem
from service.log import get_logger
from service.metrics import HTTP_REQUESTS, HTTP_SECONDS, REQUESTS

_log = get_logger(__name__)

OPENAI_VERSION = "2020-10-01"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# Asked every few seconds by machines: worth counting, not worth a line each.
_QUIET_ROUTES = {"/health", "/v1/health", "/livez", "/readyz", "/metrics", "/static"}

# The page loads only what this service serves, and nobody may frame it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Requests:
    """Give each request an id, then count, time and log it, without a word of its contents.

    `dialects` names the dialect of every path whose requests count as chat requests.
    """

    def __init__(self, app: ASGIApp, dialects: Mapping[str, str]) -> None:
        self.app = app
        self.dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = accepted_request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        reply = _Reply(send, request_id, started)
        with bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, reply.send)
            finally:
                self._record(scope, reply, time.perf_counter() - started)

    def _record(self, scope: Scope, reply: _Reply, seconds: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        HTTP_REQUESTS.labels(route, method, str(reply.status)).inc()
        HTTP_SECONDS.labels(route).observe(seconds)
        if dialect := self.dialects.get(scope["path"]):
            REQUESTS.labels(dialect, str(reply.status)).inc()
        (_log.debug if route in _QUIET_ROUTES else _log.info)(
            "request_finished",
            method=method,
            route=route,
            status=reply.status,
            seconds=round(seconds, 4),
            num_bytes=reply.num_bytes,
            complete=reply.complete,
        )


class _Reply:
    """What was sent back, as far as the log needs it."""

    def __init__(self, send: Send, request_id: str, started: float) -> None:
        self._send = send
        self._request_id = request_id
        self._started = started
        self.status = CLIENT_GONE  # until something else is sent
        self.num_bytes = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = headers["Request-Id"] = self._request_id
            # Read by clients of OpenAI's: how long it took, and which of its versions this is.
            seconds = time.perf_counter() - self._started
            headers["OpenAI-Processing-Ms"] = str(round(1000 * seconds))
            headers["OpenAI-Version"] = OPENAI_VERSION
        await self._send(message)
        if message["type"] == "http.response.body":
            self.num_bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)


def accepted_request_id(offered: str | None) -> str:
    """The client's own request id when it is harmless, else a new one."""
    return offered if offered and _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


def route_of(scope: Scope) -> str:
    """The route's template; what no route took is one label, so that scans cannot fill memory."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    return "/static" if scope["path"].startswith("/static/") else "unmatched"


class InternalErrors:
    """The one place where a bug is logged, and told to the client as nothing but a bug."""

    def __init__(self, app: ASGIApp, replies: ErrorReplies) -> None:
        self.app = app
        self.replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception:
            _log.exception("request_failed", route=route_of(scope))
            if started:
                raise  # the server can only cut the connection
            problem = internal_problem(scope["state"]["request_id"])
            await self.replies.reply(scope["path"], problem)(scope, receive, send)


class SecurityHeaders:
    """Headers that keep browsers strict; a reply's own value wins."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, adding if scope["type"] == "http" else send)


class BodyLimit:
    """Refuse bodies over `max_bytes`, by their announced length or as they arrive.

    The refusal goes out at once. Then a bounded rest of the body is read and dropped, because
    closing while the client still writes would make many clients lose the reply.
    """

    max_dropped_bytes = 64 * 1024 * 1024
    max_dropping_seconds = 5.0

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = _announced_bytes(scope)
        if scope["type"] != "http" or (announced is not None and announced <= self.max_bytes):
            await self.app(scope, receive, send)  # the server holds the client to its word
            return
        num_bytes, refused = 0, False

        async def counting() -> Message:
            nonlocal num_bytes, refused
            if announced is not None:
                refused = True
                raise self._refusal()
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_bytes:
                refused = True
                raise self._refusal()
            return message

        async def lingering(message: Message) -> None:
            if not refused:
                await send(message)
            elif message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
                await send(message)
            else:
                await send({**message, "more_body": True})
                await self._drop(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.app(scope, counting, lingering)

    def _refusal(self) -> HTTPException:
        return HTTPException(413, f"The body exceeds the {self.max_bytes} bytes that are accepted.")

    async def _drop(self, receive: Receive) -> None:
        num_dropped = 0
        try:
            async with asyncio.timeout(self.max_dropping_seconds):
                while num_dropped < self.max_dropped_bytes:
                    message = await receive()
                    num_dropped += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            _log.info("body_abandoned", num_dropped_bytes=num_dropped)


class BodyDeadline:
    """Refuse bodies that trickle in: after `silence_seconds` without a byte, and in any case after
    `most_seconds`."""

    def __init__(self, app: ASGIApp, silence_seconds: float, most_seconds: float) -> None:
        self.app = app
        self.silence_seconds = silence_seconds
        self.most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        deadline: float | None = None
        is_whole = is_late = False

        async def in_time() -> Message:
            nonlocal is_whole, is_late, deadline
            if is_whole:  # what comes now is that the client leaves, whenever it likes
                return await receive()
            deadline = deadline or time.monotonic() + self.most_seconds
            left = min(self.silence_seconds, deadline - time.monotonic())
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    message = await receive()
            except TimeoutError:
                is_late = True
                raise HTTPException(408, "The body did not arrive in time.") from None
            is_whole = not message.get("more_body", False)
            return message

        async def closing(message: Message) -> None:
            if is_late and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, in_time, closing)


def _announced_bytes(scope: Scope) -> int | None:
    """The length that the client announced; None where it sends pieces, or nothing."""
    length = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
    return int(length[:19]) if length.isascii() and length.isdigit() else None
