"""One worker's connection to one engine: jobs go out numbered, what is said of them comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import cast

import msgspec

from service.domain.chat import Prompt
from service.domain.errors import ServiceError, error_codes
from service.domain.events import TokenLogprob
from service.domain.model import ModelInfo
from service.ipc.framing import FrameReader, FramingError, encode, from_engine_decoder
from service.ipc.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Counted,
    CountTokens,
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


class EngineLost(Exception):
    """The engine went away before it had answered."""


class Lane:
    """What the engine has said about one job, as far as nobody has read it yet.

    A reader that is slower than the engine finds its deltas merged into one.
    """

    def __init__(self, connection: Connection, job_id: int) -> None:
        self.id = job_id
        self._connection = connection
        self._answer: asyncio.Future[Accepted | Counted] = asyncio.Future()
        self._wakeup = asyncio.Event()
        self._queued: Queued | None = None
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._num_tokens = 0
        self._num_unread = 0
        self._done: Done | None = None
        self._lost = False

    async def answer(self) -> Accepted | Counted:
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

    def close(self) -> None:
        """Give the job up; the engine is told, unless it has ended it already. Idempotent."""
        self._connection.forget(self, tell=self._done is None and not self._lost)
        if self._answer.done() and not self._answer.cancelled():
            self._answer.exception()  # it has been looked at; nobody else will
        self._answer.cancel()
        self._lost = True
        self._wakeup.set()

    def answered(self, answer: Accepted | Counted) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def refused(self, refusal: Refused) -> None:
        error = error_codes().get(refusal.code, ServiceError)(
            refusal.message,
            param=refusal.param,
            retry_after_seconds=refusal.retry_after_seconds,
        )
        self._fail(error)

    def queued(self, queued: Queued) -> None:
        """Its place while it waits; only the last word on it is worth reading."""
        self._queued = queued
        self._wakeup.set()

    def extend(self, delta: Delta) -> None:
        self._queued = None
        self._texts.append(delta.text)
        self._logprobs.extend(delta.logprobs)
        self._num_tokens += delta.num_tokens
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
        delta = Delta(self.id, "".join(self._texts), self._num_tokens, logprobs)
        self._texts.clear()
        self._logprobs.clear()
        self._num_tokens = self._num_unread = 0
        return delta


class Connection(asyncio.Protocol):
    """A connection that has said `Hello`. `closed` is set when it is over, for whatever reason.

    `retired` marks an engine that takes no new jobs any more, though it finishes those it has.
    """

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.retired = False
        self._hello: asyncio.Future[ModelInfo] = asyncio.Future()
        self._reader = FrameReader()
        self._lanes: dict[int, Lane] = {}
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
        return self._open_lane(lambda job_id: msgspec.structs.replace(submit, id=job_id))

    def count_tokens(self, prompt: Prompt) -> Lane:
        return self._open_lane(lambda job_id: CountTokens(job_id, prompt))

    def forget(self, lane: Lane, *, tell: bool) -> None:
        """Drop what is still said about the lane's job; `tell` the engine to stop working on it."""
        if self._lanes.pop(lane.id, None) is not None and tell:
            self._send(Cancel(lane.id))

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
    def _open_lane(self, to_frame: Callable[[int], Frame]) -> Lane:
        if self.closed.is_set():
            raise EngineLost
        lane = Lane(self, next(self._ids))
        self._lanes[lane.id] = lane
        self._send(to_frame(lane.id))
        return lane

    def _send(self, frame: Frame) -> None:
        if self._transport is not None and not self.closed.is_set():
            self._transport.write(encode(frame))

    def _receive(self, frame: FromEngine) -> None:
        if isinstance(frame, Step):
            self._advance(frame)
            return
        if isinstance(frame, Hello):
            self._greet(frame)
            return
        lane = self._lanes.get(frame.id)
        if lane is None:
            return  # given up meanwhile
        if isinstance(frame, Accepted):
            lane.answered(frame)
            return
        if isinstance(frame, Queued):
            lane.queued(frame)
            return
        del self._lanes[frame.id]
        if isinstance(frame, Counted):
            lane.answered(frame)
        else:
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
        lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            lane.lose()
