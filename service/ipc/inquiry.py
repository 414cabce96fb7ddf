"""A question to an engine that has one answer, in one frame or in several."""

from __future__ import annotations

import asyncio
from typing import Protocol

from service.domain.errors import ServiceError, error_codes
from service.ipc.messages import Counted, Detokenized, Embedded, Ranked, Refused, Tokenized

AnswerFrame = Counted | Embedded | Ranked | Tokenized | Detokenized


class EngineLost(Exception):
    """The engine went away before it had answered."""


class Line(Protocol):
    """The connection over which something was asked."""

    def forget(self, asked: int, *, tell: bool) -> None:
        """Drop what is still said of `asked`; `tell` the engine to stop working on it."""
        ...


class Inquiry:
    """One question on its way. `close` when its answer is there, or no longer wanted."""

    def __init__(self, line: Line, number: int) -> None:
        self.id = number
        self._line = line
        self._frames: list[AnswerFrame] = []
        self._answer: asyncio.Future[list[AnswerFrame]] = asyncio.Future()
        self._ended = False

    async def answer(self) -> list[AnswerFrame]:
        """All frames of the answer. Raises the refusal as a `ServiceError`, or `EngineLost`."""
        return await self._answer

    def close(self) -> None:
        """Idempotent; the engine is told where it has not answered yet."""
        # Whoever stops waiting cancels the answer, which says nothing about the engine.
        self._line.forget(self.id, tell=not self._ended)
        if self._answer.done() and not self._answer.cancelled():
            self._answer.exception()  # it has been looked at; nobody else will
        self._answer.cancel()

    def hear(self, frame: AnswerFrame | Refused) -> bool:
        """Whether `frame` was the last that there is to hear."""
        if isinstance(frame, Refused):
            self._fail(to_error(frame))
            return True
        self._frames.append(frame)
        last = not isinstance(frame, Embedded | Ranked) or frame.last
        if last:
            self._ended = True
            if not self._answer.done():
                self._answer.set_result(self._frames)
        return last

    def lose(self) -> None:
        self._fail(EngineLost())

    def _fail(self, error: Exception) -> None:
        self._ended = True
        if not self._answer.done():
            self._answer.set_exception(error)


def to_error(refusal: Refused) -> ServiceError:
    """What the engine refused, as it was raised there."""
    return error_codes().get(refusal.code, ServiceError)(
        refusal.message,
        param=refusal.param,
        retry_after_seconds=refusal.retry_after_seconds,
    )
