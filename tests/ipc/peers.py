"""The other ends of a worker's sockets, in the test's hand: an engine, and the supervisor."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from service.domain.events import FinishReason, Timings, Usage
from service.domain.model import ModelInfo
from service.ipc.framing import FrameReader, encode, to_engine_decoder
from service.ipc.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Delta,
    Done,
    Frame,
    Hello,
    Step,
    Submit,
    ToEngine,
)
from service.ipc.status import EngineState, EngineStatus, Phase, ServiceStatus, to_line
from tests.fakes.engine import FAKE_MODEL

F = TypeVar("F", bound=msgspec.Struct)


class Peer:
    """A listening unix socket and all who are connected to it; `left` is set once one has gone."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.writers: list[asyncio.StreamWriter] = []
        self.left = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    def die(self) -> None:
        """As after kill -9: connections break, the socket's file stays."""
        if self._server is not None:
            self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def greet(self, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def hear(self, data: bytes) -> None:
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.writers.append(writer)
        try:
            await self.greet(writer)
            while data := await reader.read(65536):
                await self.hear(data)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.left.set()


class EnginePeer(Peer):
    """Speaks an engine's frames; says only what the test says."""

    def __init__(self, socket: Path, model: ModelInfo = FAKE_MODEL) -> None:
        super().__init__(socket)
        self.model = model
        self.protocol_version = PROTOCOL_VERSION
        self.received: asyncio.Queue[ToEngine] = asyncio.Queue()
        self._frames = FrameReader()

    async def greet(self, writer: asyncio.StreamWriter) -> None:
        self._frames = FrameReader()
        writer.write(encode(Hello(self.protocol_version, pid=1, model=self.model)))

    async def hear(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self.received.put_nowait(to_engine_decoder.decode(body))

    async def next(self, kind: type[F]) -> F:
        """The next frame that was received, which must be of this kind."""
        frame = await self.received.get()
        assert isinstance(frame, kind), frame
        return frame

    def say(self, *frames: Frame) -> None:
        for writer in self.writers:
            writer.write(b"".join(encode(frame) for frame in frames))

    async def accept(self) -> int:
        """Accept the next job; its number."""
        submit = await self.next(Submit)
        self.say(Accepted(submit.id, prompt_tokens=7, num_waiting=0))
        return submit.id

    def write(self, job_id: int, *texts: str) -> None:
        for text in texts:
            self.say(Step(deltas=(Delta(job_id, text, 1),)))

    def finish(self, job_id: int, reason: FinishReason = FinishReason.STOP) -> None:
        self.say(Step(dones=(Done(job_id, reason, Usage(7, 0, 2), Timings()),)))

    def status(self, engine_id: int, state: EngineState = EngineState.READY) -> EngineStatus:
        return EngineStatus(engine_id, self.model.name, str(self.socket), state, 1.0)


class SupervisorPeer(Peer):
    """Announces what the test says, to everybody, now and on connecting."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.present = ServiceStatus()

    async def greet(self, writer: asyncio.StreamWriter) -> None:
        writer.write(to_line(self.present))

    async def hear(self, data: bytes) -> None:
        raise AssertionError(f"a worker has nothing to say here, but said {data!r}")

    def announce(self, status: ServiceStatus) -> None:
        self.present = status
        for writer in self.writers:
            writer.write(to_line(status))

    def change(self, **facts: object) -> None:
        self.announce(replace(self.present, **facts))  # type: ignore[arg-type]


def serving(*engines: EngineStatus, current: int | None = 1) -> ServiceStatus:
    """The status of a service with these engines."""
    return ServiceStatus(Phase.SERVING, engines[0].model, current, engines, retry_after_seconds=3.0)


class CommandPeer(SupervisorPeer):
    """Answers each command with the next of `replies`."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.replies: list[bytes] = []
        self.heard: list[bytes] = []

    async def hear(self, data: bytes) -> None:
        self.heard.append(data)
        self.writers[-1].write(to_line(self.present) + self.replies.pop(0))
