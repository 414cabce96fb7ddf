"""The workers' end of the sockets: what they ask of engines, and the way to the current one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from service.domain.chat import Prompt
from service.domain.model import Mode, ModelInfo
from service.ipc.asking import Question, ask
from service.ipc.command import SwitchCommand, WakeCommand, send_command
from service.ipc.connection import Connection
from service.ipc.framing import FramingError
from service.ipc.inquiry import AnswerFrame
from service.ipc.known_model import keep_model, known_model
from service.ipc.messages import Accepted, Counted, CountTokens, Delta, Done, Queued, Submit
from service.ipc.refusals import why_unavailable
from service.ipc.status import EngineState, EngineStatus, Phase, ServiceStatus
from service.ipc.status_feed import StatusFeed
from service.ipc.submission import Submission, Succession
from service.ipc.suspects import DIRECTORY, Suspects
from service.log import get_logger

RESUBMIT_SECONDS = 60.0
# Of requests that come while one model has gone and the other one is not there yet.
SWITCH_SECONDS, MAX_WAITING = 60.0, 256
# Of requests that bring back a model which has left memory: a large one takes minutes to load.
WAKE_SECONDS = 900.0
# Of requests that come between the supervisor's word that an engine is there and the way to it.
REACH_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0

log = get_logger(__name__)


class EngineStream(Protocol):
    """An accepted job's progress: `Queued` while it waits, `Delta`, then exactly one `Done`.

    The engine's death arrives as a `Done` with `error_code`. Closing the stream cancels the job.
    """

    accepted: Accepted

    def __aiter__(self) -> AsyncIterator[Queued | Delta | Done]: ...

    def stop(self) -> None:
        """Ask the engine to end the job; unlike after closing, its last word still comes."""
        ...

    async def aclose(self) -> None: ...


class EngineClient(Protocol):
    """One way to one served model."""

    @property
    def model(self) -> ModelInfo: ...

    async def submit(self, job: Submit) -> EngineStream:
        """Returns once the engine has accepted; the connection numbers the job.

        Raises the engine's refusal as a `ServiceError`, `EngineUnavailable` (with a time to retry)
        when there is no engine to ask. A job without a token sent is resubmitted once if its engine
        dies.
        """
        ...

    async def count_tokens(self, prompt: Prompt, pictures: tuple[bytes, ...] = ()) -> int: ...

    async def ask(self, question: Question) -> list[AnswerFrame]:
        """All frames of the answer. Raises the engine's refusal, or `EngineUnavailable`; asked once
        more if the engine goes away. Cancelling this cancels the work."""
        ...


class Engines(Protocol):
    """The engines of this service, as the supervisor announces them."""

    @property
    def status(self) -> ServiceStatus:
        """The supervisor's last word; phase `STARTING` before its first."""
        ...

    def current(self, mode: Mode = Mode.CHAT) -> EngineClient:
        """The engine for new requests of this mode. Raises `EngineUnavailable` saying why there is
        none."""
        ...

    def guest(self, model: str) -> EngineClient | None:
        """The engine of a model that serves those who ask for it, where it is there now."""
        ...

    @property
    def resting(self) -> ModelInfo | None:
        """The model for chats that is asleep, and comes back with the next request; None where
        none is."""
        ...

    async def switch(self, command: SwitchCommand) -> int:
        """Ask the supervisor for another model; `status.switch` follows, under this number.

        Raises its refusal as a `ServiceError`, `EngineUnavailable` where it does not answer.
        """
        ...

    async def news(self) -> None:
        """Returns when `status` may have changed."""
        ...

    async def bridged(self) -> None:
        """Returns at once, unless there is no engine for chats because a switch had no memory for
        two models, or because nobody had asked for long, or because it has just come: then when
        there is one, which the supervisor is asked for, or when it is not worth waiting for it any
        longer."""
        ...

    async def settled(self, seconds: float = 2.0) -> None:
        """Returns when the supervisor has been heard and, if it says that an engine is ready, that
        engine has been reached; at the latest after `seconds`. For a worker's start."""
        ...

    async def aclose(self) -> None: ...


def connect_engines(
    status_socket: Path, *, resubmit_seconds: float = RESUBMIT_SECONDS
) -> ConnectedEngines:
    """Follow the supervisor behind `status_socket` and its engines, from now until `aclose`.

    Needs a running event loop. `resubmit_seconds` is how long a job whose engine died before
    the first token waits for the next engine.
    """
    return ConnectedEngines(status_socket, resubmit_seconds)


class ConnectedEngines:
    """The `Engines` of a running service, over its sockets."""

    def __init__(self, status_socket: Path, resubmit_seconds: float) -> None:
        self.resubmit_seconds = resubmit_seconds
        self.suspects = Suspects(status_socket.parent / DIRECTORY)
        self._status_socket = status_socket
        self._heard = ServiceStatus()
        self._preferred: dict[Mode, int] = {}
        self._connections: dict[int, Connection] = {}
        self._links: dict[int, asyncio.Task[None]] = {}
        self._last_model: ModelInfo | None = None
        self._switched_away = False
        self._num_waiting = 0
        self._waking = False
        self._change = asyncio.Event()
        self._first_word = asyncio.Event()
        feed = StatusFeed(status_socket, self._on_status, self._on_silence)
        self._feed = asyncio.create_task(feed.follow(), name="status-feed")

    @property
    def status(self) -> ServiceStatus:
        """The supervisor's last word, as far as this worker can act on it: `current` is an engine
        that it has reached."""
        connected = self._connected(Mode.CHAT)
        return replace(self._heard, current=connected[0] if connected else None)

    def current(self, mode: Mode = Mode.CHAT) -> EngineClient:
        connected = self._connected(mode)
        if self._heard.phase is Phase.DRAINING or connected is None:
            raise why_unavailable(self._heard, mode)
        return ConnectedClient(self, connected[1])

    def guest(self, model: str) -> EngineClient | None:
        for engine in self._heard.engines:
            connection = self._connections.get(engine.id)
            if (engine.model, engine.is_guest, engine.state) != (model, True, EngineState.READY):
                continue
            if connection is not None and not connection.retired:
                return ConnectedClient(self, connection)
        return None

    @property
    def resting(self) -> ModelInfo | None:
        sleeper, model = self._heard.sleeper, self._last_model
        asleep = sleeper is not None and model is not None and sleeper.model == model.name
        return model if asleep else None

    async def switch(self, command: SwitchCommand) -> int:
        return await send_command(self._status_socket, command)

    async def bridged(self) -> None:
        if self._num_waiting >= MAX_WAITING:
            return
        self._num_waiting += 1
        seconds = SWITCH_SECONDS if self._heard.sleeper is None else WAKE_SECONDS
        try:
            if self._heard.current is not None and self._connected(Mode.CHAT) is None:
                await self.settled(REACH_SECONDS)
            async with asyncio.timeout(seconds):
                while self._is_between_models():
                    await self._wake_or_wait()
        except TimeoutError:
            log.info("model_not_waited_for", seconds=seconds)
        finally:
            self._num_waiting -= 1

    async def _wake_or_wait(self) -> None:
        """Returns when there is news, which it sees to where the model is asleep."""
        sleeper, told = self._heard.sleeper, self._change
        if sleeper is not None and sleeper.state is EngineState.ASLEEP and not self._waking:
            self._waking = True
            try:
                await send_command(self._status_socket, WakeCommand())
            finally:
                self._waking = False
        await told.wait()

    def _is_between_models(self) -> bool:
        """Whether one has gone, for another or for lack of requests, and none has been reached
        since."""
        if self._connected(Mode.CHAT) is not None:
            self._switched_away = False
        return self._switched_away and self._heard.phase is not Phase.DRAINING

    async def successor(self, after: Connection, seconds: float) -> Connection | None:
        """The engine that takes over from `after`; None when there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self._heard.phase is not Phase.DRAINING:
                    connected = self._connected(after.model.mode)
                    if connected is not None and connected[1] is not after:
                        return connected[1]
                    await self._wake_or_wait()
        except TimeoutError:
            pass
        return None

    async def news(self) -> None:
        """Returns when the supervisor has said something, or a connection came or went."""
        await self._change.wait()

    async def settled(self, seconds: float = 2.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._first_word.wait()
                while self._heard.current is not None and self._connected(Mode.CHAT) is None:
                    await self.news()
        except TimeoutError:
            log.info("engine_not_reached_yet", current=self._heard.current)

    async def aclose(self) -> None:
        tasks = [self._feed, *self._links.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.close()

    def _connected(self, mode: Mode) -> tuple[int, Connection] | None:
        """The engine for new jobs of this mode, with its id.

        Until an engine that has just become current is reached, that is the one before it, even
        while it drains: what it then refuses is sent to its successor.
        """
        usable = {EngineState.READY}
        current = self._heard.current_of(mode)
        if current is not None:
            usable.add(EngineState.DRAINING)
        states = {engine.id: engine.state for engine in self._heard.engines}
        for engine_id in (current, self._preferred.get(mode)):
            if engine_id is None or states.get(engine_id) not in usable:
                continue
            connection = self._connections.get(engine_id)
            if connection is not None and not connection.retired:
                return engine_id, connection
        return None

    def _on_status(self, status: ServiceStatus) -> None:
        self._preferred = {
            mode: connected[0] for mode in Mode if (connected := self._connected(mode)) is not None
        }
        self._heard = status
        if status.sleeper is not None and self._last_model is None:
            self._last_model = known_model(self._status_socket.parent)
        self.suspects.heard(status)
        switch = status.switch
        if switch is not None and switch.mode is Mode.CHAT and not switch.is_over:
            self._switched_away = status.current is None
        if status.sleeper is not None:
            self._switched_away = True
        self._first_word.set()
        for engine in status.engines:
            if engine.state is EngineState.READY and engine.id not in self._links:
                task = asyncio.create_task(self._keep_connected(engine), name=f"link-{engine.id}")
                self._links[engine.id] = task
                task.add_done_callback(partial(self._unlink, engine.id))
        self._announce()

    def _unlink(self, engine_id: int, _task: asyncio.Task[None]) -> None:
        del self._links[engine_id]

    def _on_silence(self) -> None:
        if self._heard.phase is not Phase.DRAINING:
            log.warning("supervisor_lost")
            self._heard = replace(self._heard, phase=Phase.DRAINING)
            self._announce()

    def _announce(self) -> None:
        """Wake all who wait for a change."""
        self._change.set()
        self._change = asyncio.Event()

    def _is_ready(self, engine_id: int) -> bool:
        return any(e.id == engine_id and e.state is EngineState.READY for e in self._heard.engines)

    async def _keep_connected(self, engine: EngineStatus) -> None:
        """Hold a connection to `engine` for as long as the supervisor says that it is ready; one
        that ends otherwise (a slow reader is dropped by the engine) is opened again."""
        pause = FIRST_PAUSE_SECONDS
        while self._is_ready(engine.id):
            try:
                connection = await Connection.open(Path(engine.socket))
            except (OSError, FramingError) as error:
                log.info("engine_not_reached", engine=engine.id, error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            log.info("engine_reached", engine=engine.id, model=connection.model.name)
            connection.engine_id = engine.id
            self._connections[engine.id] = connection
            if engine.mode is Mode.CHAT and not engine.is_guest:
                self._last_model = connection.model
                keep_model(self._status_socket.parent, connection.model)
            self._is_between_models()  # if it was so, it is over
            self._announce()
            await connection.closed.wait()
            del self._connections[engine.id]
            self._announce()


class ConnectedClient:
    """The way to one engine."""

    def __init__(self, engines: Succession, connection: Connection) -> None:
        self._engines = engines
        self._connection = connection

    @property
    def model(self) -> ModelInfo:
        return self._connection.model

    async def submit(self, job: Submit) -> EngineStream:
        submission = Submission(self._engines, self._connection, job)
        await submission.open()
        return submission

    async def count_tokens(self, prompt: Prompt, pictures: tuple[bytes, ...] = ()) -> int:
        (counted,) = await self.ask(CountTokens(0, prompt, pictures))
        if not isinstance(counted, Counted):
            raise FramingError(f"the engine answered a count with {type(counted).__name__}")
        return counted.num_tokens

    async def ask(self, question: Question) -> list[AnswerFrame]:
        return await ask(self._engines, self._connection, question)
