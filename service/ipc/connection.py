"""One worker's connection to one engine: jobs and questions go out numbered, what is said of them
comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import cast

import msgspec

from service.domain.events import TokenLogprob
from service.domain.model import ModelInfo
from service.ipc.framing import FrameReader, FramingError, encode, from_engine_decoder
from service.ipc.inquiry import AnswerFrame, EngineLost, Inquiry, to_error
from service.ipc.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Delta,
    Done,
    Frame,
    FromEngine,
    Hello,
    Queued,
    Refused,
    Step,
    Submit,
)

HELLO_SECONDS = 5.0
MAX_UNREAD_CHARACTERS = 4 * 1024 * 1024


class Lane:
    """What the engine has said about one job, as far as nobody has read it yet.

    A reader that is slower than the engine finds its deltas merged into one.
    """

    def __init__(self, connection: Connection, job_id: int) -> None:
        self.id = job_id
        self._connection = connection
        self._answer: asyncio.Future[Accepted] = asyncio.Future()
        self._wakeup = asyncio.Event()
        self._queued: Queued | None = None
        self._texts: list[str] = []
        self._begins: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._num_tokens = 0
        self._num_unread = 0
        self._done: Done | None = None
        self._lost = False

    async def answer(self) -> Accepted:
        """The engine's first word. Raises its refusal as a `ServiceError`, or `EngineLost`."""
        return await self._answer

    async def read(self) -> Queued | Delta | Done:
        """What comes next; `Done` is the last. Raises `EngineLost` when nothing more will come."""
        while True:
            if self._texts:
                return self._take()
            if self._queued is not None:
                queued, self._queued = self._queued, None
                return queued
            if self._done is not None:
                return self._done
            if self._lost:
                raise EngineLost
            self._wakeup.clear()
            await self._wakeup.wait()

    def stop(self) -> None:
        """Tell the engine to end the job, and go on listening for its last word."""
        self._connection.cancel(self.id)

    def close(self) -> None:
        """Give the job up; the engine is told, unless it has ended it already. Idempotent."""
        self._connection.forget(self.id, tell=self._done is None and not self._lost)
        if self._answer.done() and not self._answer.cancelled():
            self._answer.exception()  # it has been looked at; nobody else will
        self._answer.cancel()
        self._lost = True
        self._wakeup.set()

    def accepted(self, answer: Accepted) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def refused(self, refusal: Refused) -> None:
        self._fail(to_error(refusal))

    def queued(self, queued: Queued) -> None:
        """Its place while it waits; only the last word on it is worth reading."""
        self._queued = queued
        self._wakeup.set()

    def extend(self, delta: Delta) -> None:
        self._queued = None
        self._texts.append(delta.text)
        self._logprobs.extend(delta.logprobs)
        self._num_tokens += delta.num_tokens
        begins = delta.begins or (0,) * delta.num_tokens
        self._begins += (self._num_unread + begin for begin in begins)
        self._num_unread += len(delta.text)
        self._wakeup.set()
        if self._num_unread > MAX_UNREAD_CHARACTERS:
            self.close()
            self.lose()

    def finish(self, done: Done) -> None:
        self._done = done
        self._wakeup.set()

    def lose(self) -> None:
        self._lost = True
        self._fail(EngineLost())

    def _fail(self, error: Exception) -> None:
        self._lost = True
        if not self._answer.done():
            self._answer.set_exception(error)
        self._wakeup.set()

    def _take(self) -> Delta:
        logprobs = tuple(self._logprobs)
        begins = () if self._begins == [0] else tuple(self._begins)
        delta = Delta(self.id, "".join(self._texts), self._num_tokens, logprobs, begins)
        self._texts.clear()
        self._begins.clear()
        self._logprobs.clear()
        self._num_tokens = self._num_unread = 0
        return delta


class Connection(asyncio.Protocol):
    """A connection that has said `Hello`. `closed` is set when it is over, for whatever reason.

    `retired` marks an engine that takes no new jobs any more, though it finishes those it has;
    `engine_id` is its number with the supervisor, where it has one.
    """

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.retired = False
        self.engine_id = 0
        self._hello: asyncio.Future[ModelInfo] = asyncio.Future()
        self._reader = FrameReader()
        self._lanes: dict[int, Lane] = {}
        self._inquiries: dict[int, Inquiry] = {}
        self._ids = count(1)
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, socket: Path) -> Connection:
        """Raises `OSError` when nobody listens, `FramingError` when it is not an engine of ours,
        `TimeoutError` when it doesn't introduce itself."""
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_unix_connection(cls, str(socket))
        with ExitStack() as on_failure:
            on_failure.callback(transport.close)
            async with asyncio.timeout(HELLO_SECONDS):
                await connection._hello
            on_failure.pop_all()
        return connection

    @property
    def model(self) -> ModelInfo:
        return self._hello.result()

    def submit(self, submit: Submit) -> Lane:
        """Send `submit` under a number of this connection. Raises `EngineLost`."""
        lane = Lane(self, self._next_id())
        self._lanes[lane.id] = lane
        self._send(msgspec.structs.replace(submit, id=lane.id))
        return lane

    def ask(self, to_frame: Callable[[int], Frame]) -> Inquiry:
        """Send the question that `to_frame` makes of a number. Raises `EngineLost`."""
        inquiry = Inquiry(self, self._next_id())
        self._inquiries[inquiry.id] = inquiry
        self._send(to_frame(inquiry.id))
        return inquiry

    def cancel(self, asked: int) -> None:
        """Tell the engine to end a job; what it says of that is still heard."""
        self._send(Cancel(asked))

    def forget(self, asked: int, *, tell: bool) -> None:
        """Drop what is still said of a job or a question; `tell` the engine to stop on it."""
        known = self._lanes.pop(asked, None) or self._inquiries.pop(asked, None)
        if known is not None and tell:
            self._send(Cancel(asked))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._end()

    # --- what asyncio calls -------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                self._receive(from_engine_decoder.decode(body))
        except (FramingError, msgspec.DecodeError) as error:
            if not self._hello.done():
                self._hello.set_exception(FramingError(str(error)))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._hello.done():
            self._hello.set_exception(exc or ConnectionResetError("closed before its hello"))
        self._end()

    # --- inside ---------------------------------------------------------------------------------
    def _next_id(self) -> int:
        if self.closed.is_set():
            raise EngineLost
        return next(self._ids)

    def _send(self, frame: Frame) -> None:
        if self._transport is not None and not self.closed.is_set():
            self._transport.write(encode(frame))

    def _receive(self, frame: FromEngine) -> None:
        if isinstance(frame, Step):
            self._advance(frame)
        elif isinstance(frame, Hello):
            self._greet(frame)
        elif isinstance(frame, Accepted | Queued):
            self._progress(frame)
        else:
            self._answer(frame)

    def _progress(self, frame: Accepted | Queued) -> None:
        lane = self._lanes.get(frame.id)
        if lane is None:
            return  # given up meanwhile
        if isinstance(frame, Accepted):
            lane.accepted(frame)
        else:
            lane.queued(frame)

    def _answer(self, frame: AnswerFrame | Refused) -> None:
        inquiry = self._inquiries.get(frame.id)
        if inquiry is not None:
            if inquiry.hear(frame):
                del self._inquiries[frame.id]
        elif isinstance(frame, Refused) and (lane := self._lanes.pop(frame.id, None)) is not None:
            lane.refused(frame)

    def _advance(self, step: Step) -> None:
        for delta in step.deltas:
            if (lane := self._lanes.get(delta.id)) is not None:
                lane.extend(delta)
        for done in step.dones:
            if (lane := self._lanes.pop(done.id, None)) is not None:
                lane.finish(done)

    def _greet(self, hello: Hello) -> None:
        if hello.protocol_version != PROTOCOL_VERSION:
            raise FramingError(
                f"the engine speaks version {hello.protocol_version} of the protocol, "
                f"this worker {PROTOCOL_VERSION}"
            )
        if not self._hello.done():
            self._hello.set_result(hello.model)

    def _end(self) -> None:
        self.closed.set()
        lost: list[Lane | Inquiry] = [*self._lanes.values(), *self._inquiries.values()]
        self._lanes.clear()
        self._inquiries.clear()
        for asked in lost:
            asked.lose()
