"""A job on its way through an engine, or, when that one dies early, through two."""

from __future__ import annotations

from typing import Protocol, Self

from service.domain.errors import EngineUnavailable, ServiceError
from service.domain.events import FinishReason, Timings, Usage
from service.ipc.connection import Connection, Lane
from service.ipc.inquiry import EngineLost
from service.ipc.messages import Accepted, Delta, Done, Queued, Submit
from service.ipc.refusals import why_unavailable
from service.ipc.status import ServiceStatus
from service.log import get_logger

HANDOVER_SECONDS = 5.0

log = get_logger(__name__)


class Succession(Protocol):
    """Which engine comes after another."""

    resubmit_seconds: float

    @property
    def status(self) -> ServiceStatus: ...

    async def successor(self, after: Connection, seconds: float) -> Connection | None: ...


class Submission:
    """The `EngineStream` of one job.

    It is sent a second time, and no more, when the engine goes away or refuses because it drains
    before any text was read here.
    """

    accepted: Accepted

    def __init__(self, engines: Succession, connection: Connection, submit: Submit) -> None:
        self._engines = engines
        self._connection = connection
        self._submit = submit
        self._lane: Lane | None = None
        self._may_resubmit = True
        self._num_tokens = 0
        self._ended = False

    async def open(self) -> None:
        """Returns once an engine has accepted. Raises its refusal; the job is cancelled when this
        is."""
        try:
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
        if self._lane is not None:
            self._lane.close()

    async def _open(self) -> None:
        while True:
            try:
                self._lane = self._connection.submit(self._submit)
                answer = await self._lane.answer()
            except EngineLost:
                if not await self._move(self._engines.resubmit_seconds):
                    raise why_unavailable(self._engines.status) from None
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
        if successor is None or successor.model != self._connection.model:
            return False
        log.info("job_resubmitted", request_id=self._submit.request_id)
        self._connection = successor
        return True

    async def _after_loss(self) -> Queued | Delta | Done:
        moved = await self._move(self._engines.resubmit_seconds)
        if self._ended:  # closed meanwhile
            raise StopAsyncIteration
        if not moved:
            return self._failed(
                EngineUnavailable("The engine stopped before the answer was complete.")
            )
        try:
            await self._open()
        except ServiceError as error:
            return self._failed(error)
        return await anext(self)

    def _failed(self, error: ServiceError) -> Done:
        self._ended = True
        return Done(
            id=0,
            reason=FinishReason.CANCELLED,
            usage=Usage(completion_tokens=self._num_tokens),
            timings=Timings(),
            error_code=error.code,
            error_message=error.message,
        )
