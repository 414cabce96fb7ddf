"""A job on its way through an engine, or, when that one dies early, through two."""

from __future__ import annotations

import asyncio
from typing import Protocol, Self

from service.domain.errors import EngineUnavailable, ServiceError
from service.domain.events import FinishReason, Timings, Usage
from service.domain.model import ModelInfo
from service.ipc.connection import Connection, Lane
from service.ipc.inquiry import EngineLost
from service.ipc.messages import Accepted, Delta, Done, Queued, Submit
from service.ipc.refusals import why_unavailable
from service.ipc.status import ServiceStatus
from service.ipc.suspects import MAX_CRASHES, Suspects, poisonous
from service.log import get_logger

HANDOVER_SECONDS = 5.0
# How long the supervisor may take to notice that an engine has died.
VERDICT_SECONDS = 5.0

log = get_logger(__name__)


class Succession(Protocol):
    """Which engine comes after another, and what is known of those that died."""

    resubmit_seconds: float
    suspects: Suspects

    @property
    def status(self) -> ServiceStatus: ...

    async def news(self) -> None: ...

    async def successor(self, after: Connection, seconds: float) -> Connection | None: ...


class Submission:
    """The `EngineStream` of one job.

    It is sent a second time, and no more, when the engine goes away or refuses because it drains
    before any text was read here; not where an engine has died on it before.
    """

    accepted: Accepted

    def __init__(self, engines: Succession, connection: Connection, submit: Submit) -> None:
        self._engines = engines
        self._connection = connection
        self._submit = submit
        self._lane: Lane | None = None
        self._may_resubmit = True
        self._suspected = False
        self._num_tokens = 0
        self._ended = False

    async def open(self) -> None:
        """Returns once an engine has accepted. Raises its refusal; the job is cancelled when this
        is."""
        try:
            self._suspected = await self._engines.suspects.enter(self._submit)
            await self._open()
        finally:
            if not hasattr(self, "accepted"):
                await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Queued | Delta | Done:
        if self._ended or self._lane is None:
            raise StopAsyncIteration
        try:
            message = await self._lane.read()
        except EngineLost:
            return await self._after_loss()
        if isinstance(message, Done):
            self._ended = True
            self._clear(ended_well=message.error_code is None)
        elif isinstance(message, Delta) and message.text:
            self._may_resubmit = False
            self._num_tokens += message.num_tokens
        return message

    def stop(self) -> None:
        """Ask the engine to end the job; its last word still comes."""
        self._may_resubmit = False
        if self._lane is not None:
            self._lane.stop()

    async def aclose(self) -> None:
        """Cancels what is left to do. Idempotent."""
        self._ended = True
        self._clear(ended_well=False)
        if self._lane is not None:
            self._lane.close()

    async def _open(self) -> None:
        while True:
            lane = None
            try:
                lane = self._lane = self._connection.submit(self._submit)
                answer = await lane.answer()
            except EngineLost:
                if not await self._move_from_loss(was_sent=lane is not None):
                    raise await self._verdict() or why_unavailable(self._engines.status) from None
            except EngineUnavailable:
                # It drains; requests that come now belong to the engine that takes over.
                self._connection.retired = True
                if not await self._move(HANDOVER_SECONDS):
                    raise
            else:
                break
        self.accepted = answer

    async def _move(self, seconds: float) -> bool:
        """To the next engine, once, and only if it has the same model: a prompt means nothing to
        another."""
        if not self._may_resubmit or self._ended:
            return False
        self._may_resubmit = False
        successor = await self._engines.successor(self._connection, seconds)
        if successor is None:
            return False
        if not self._suspected:
            self._suspected = await self._engines.suspects.enter(self._submit)
        if successor.closed.is_set():  # while it waited for its turn; another one's fault
            successor = await self._engines.successor(successor, seconds)
        if successor is None or not _is_same(successor.model, self._connection.model):
            return False
        log.info("job_resubmitted", request_id=self._submit.request_id)
        self._connection = successor
        return True

    async def _move_from_loss(self, *, was_sent: bool = True) -> bool:
        if was_sent:
            self._engines.suspects.lost(self._connection.engine_id, self._submit)
            self._may_resubmit &= not self._suspected
        return await self._move(self._engines.resubmit_seconds)

    async def _verdict(self) -> ServiceError | None:
        """What is to be said where a request was lost that an engine had died on before."""
        if not self._suspected:
            return None
        try:
            async with asyncio.timeout(VERDICT_SECONDS):
                while self._engines.suspects.num_crashes(self._submit) < MAX_CRASHES:
                    await self._engines.news()
        except TimeoutError:  # it was not the engine that ended
            return None
        return poisonous(MAX_CRASHES)

    def _clear(self, *, ended_well: bool) -> None:
        if self._suspected:
            self._suspected = False
            self._engines.suspects.leave(self._submit, ended_well=ended_well)

    async def _after_loss(self) -> Queued | Delta | Done:
        try:
            moved = await self._move_from_loss()
            if self._ended:  # closed meanwhile
                raise StopAsyncIteration
            if not moved:
                usual = EngineUnavailable("The engine stopped before the answer was complete.")
                return self._failed(await self._verdict() or usual)
            await self._open()
        except ServiceError as error:
            return self._failed(error)
        return await anext(self)

    def _failed(self, error: ServiceError) -> Done:
        self._ended = True
        self._clear(ended_well=False)
        return Done(
            id=0,
            reason=FinishReason.CANCELLED,
            usage=Usage(completion_tokens=self._num_tokens),
            timings=Timings(),
            error_code=error.code,
            error_message=error.message,
        )


def _is_same(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether a prompt for one is a prompt for the other, however much room each has for it."""
    return (one.name, one.created, one.size_bytes, one.chat_template) == (
        other.name,
        other.created,
        other.size_bytes,
        other.chat_template,
    )
