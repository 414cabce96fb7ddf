"""Answers on their way out: server-sent events, and what happens when the client goes away.

An own response class that writes ready bytes costs a quarter of the framework's own event
streams. Closing the stream is the cancel, wherever the generation happens to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.errors import ClientGone, Problem, internal_problem, to_problem
from service.domain.events import Event, Failed, Finished, QueuePosition
from service.log import get_logger

T = TypeVar("T")
_log = get_logger(__name__)

# The first bytes of a stream: proxies and clients learn at once that it was accepted.
_GREETING = b": ok\n\n"
_KEEPALIVE = b": ping\n\n"


class EventSource(Protocol):
    """A generation: events that end with `Finished` or `Failed`; leaving it is the cancel."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Frames(Protocol):
    """One stream in a dialect's words: complete frames, or nothing (`b""`)."""

    def opening(self) -> bytes: ...

    def event(self, event: Event) -> bytes:
        """The frames for any event but `Failed` and `QueuePosition`; after `Finished` the stream
        is complete."""
        ...

    def failure(self, problem: Problem) -> bytes:
        """The frames that end a stream which broke."""
        ...


class EventStream(Response):
    """Write a generation to the client as it comes.

    Events that wait together leave in one write. The generation is closed when the client goes
    away, whether or not there is anything to write, and whatever happens here.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: EventSource,
        frames: Frames,
        keepalive_seconds: float,
        headers: Mapping[str, str] | None = None,
        keepalive: bytes = _KEEPALIVE,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(
            {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        )
        self._events = events
        self._frames = frames
        self._keepalive_seconds = keepalive_seconds
        self._keepalive = keepalive
        self._waiting: list[bytes] = []
        self._wake = asyncio.Event()
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope.get("state", {}).get("request_id", "")
        async with self._events:
            pump = asyncio.create_task(self._pump(request_id))
            departure = asyncio.create_task(disconnected(receive))
            departure.add_done_callback(lambda _: self._wake.set())
            keepalive = _Keepalive(self._keepalive_seconds, self._stay)
            try:
                await self._write(send, departure, keepalive)
            finally:
                keepalive.stop()
                await _cancelled(pump, departure)

    async def _write(
        self, send: Send, departure: asyncio.Task[None], keepalive: _Keepalive
    ) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        self._waiting.insert(0, _GREETING + self._frames.opening())
        while not departure.done():
            self._wake.clear()
            ended, data = self._ended, b"".join(self._waiting)
            self._waiting.clear()
            await send({"type": "http.response.body", "body": data, "more_body": not ended})
            if ended:
                return
            keepalive.reset()
            await self._wake.wait()

    async def _pump(self, request_id: str) -> None:
        """Turn events into frames until the last one; a bug ends the stream like a failure."""
        try:
            await self._translate()
        except Exception:  # noqa: BLE001  after the first byte a bug, too, is an event
            _log.exception("stream_failed")
            self._end(self._frames.failure(internal_problem(request_id)))

    async def _translate(self) -> None:
        async for event in self._events:
            if isinstance(event, Failed):
                _log.warning("stream_broken", code=event.error.code, reason=event.error.message)
                self._end(self._frames.failure(to_problem(event.error)))
                return
            if isinstance(event, QueuePosition):
                self._add(_queue_comment(event))
                continue
            data = self._frames.event(event)
            if isinstance(event, Finished):
                self._end(data)
                return
            if data:
                self._add(data)
        raise RuntimeError("a generation ended without Finished or Failed")

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._wake.set()

    def _stay(self) -> None:
        self._add(self._keepalive)

    def _end(self, data: bytes) -> None:
        self._ended = True
        self._add(data)


def _queue_comment(position: QueuePosition) -> bytes:
    """A comment says it to people and proxies; no client has to know of it."""
    return f": queued ahead={position.num_ahead} eta={position.eta_seconds:.1f}s\n\n".encode()


class _Keepalive:
    """Give a sign whenever nothing was written for a while. One timer, moved only when due."""

    def __init__(self, seconds: float, give_sign: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._give_sign = give_sign
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._due)

    def reset(self) -> None:
        self._last_write = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _due(self) -> None:
        now = self._loop.time()
        if now - self._last_write >= self._seconds:
            self._give_sign()
            self._last_write = now
        self._timer = self._loop.call_at(self._last_write + self._seconds, self._due)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, cancelled as soon as the client goes away: then raises `ClientGone`."""
    task = asyncio.create_task(work)
    departure = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait({task, departure}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        await _cancelled(task, departure)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel, and wait until each has wound up; how they ended is no longer of interest."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
