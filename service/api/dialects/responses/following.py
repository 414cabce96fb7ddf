"""A response on its way to somebody who may go away, and come back, without ending it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.responses import StreamingResponse

from service.api.dialects.responses.replies import last_frame
from service.chat.responses import Growth
from service.domain.conversation import ResponseState

_GREETING = b": ok\n\n"
_KEEPALIVE = b": ping\n\n"
_UNFINISHED = (ResponseState.CANCELLED, ResponseState.LOST)


class Followed:
    """The frames of a response from `number` on, and signs of life where there are none for
    `keepalive_seconds`."""

    def __init__(
        self, growth: AsyncIterator[Growth], number: int, keepalive_seconds: float
    ) -> None:
        self._growth = growth
        self._number = number
        self._keepalive_seconds = keepalive_seconds

    def stream(self, headers: Mapping[str, str] | None = None) -> StreamingResponse:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        return StreamingResponse(self._frames(), media_type="text/event-stream", headers=headers)

    async def _frames(self) -> AsyncIterator[bytes]:
        yield _GREETING
        coming = asyncio.ensure_future(anext(self._growth))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=self._keepalive_seconds)
                if not done:
                    yield _KEEPALIVE
                    continue
                try:
                    growth = coming.result()
                except StopAsyncIteration:
                    return
                if told := self._told(growth):
                    yield told
                coming = asyncio.ensure_future(anext(self._growth))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    def _told(self, growth: Growth) -> bytes:
        self._number += len(growth.events)
        frames = "".join(growth.events)
        if growth.kept is not None and growth.kept.state in _UNFINISHED:
            frames += last_frame(growth.kept, self._number)
        return frames.encode()
