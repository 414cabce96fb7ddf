"""An answer that is written with nobody waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from service.chat.generate import EventSource
from service.domain.conversation import KeptResponse, KeptTurn, ResponseState
from service.domain.errors import GenerationFailed, StoreUnavailable
from service.domain.events import Event, Failed, Finished
from service.log import get_logger

FLUSH_SECONDS = 0.5
HEARTBEAT_SECONDS = 3.0

log = get_logger(__name__)


class Draft(Protocol):
    """One response while it is written, in a dialect's words.

    `events` is all that was told of it so far; `is_kept` says whether it is to be kept at all.
    """

    @property
    def is_kept(self) -> bool: ...

    @property
    def events(self) -> Sequence[str]: ...

    def take(self, event: Event) -> None:
        """Write down what comes next; nothing comes after `Finished` or `Failed`."""
        ...

    def kept(self, state: ResponseState) -> KeptResponse:
        """All of it, as it is now."""
        ...

    def turn(self) -> KeptTurn | None:
        """What its conversation gets of it, where it belongs to one."""
        ...


Grow = Callable[[KeptResponse, int, Sequence[str], KeptTurn | None], Awaitable[bool]]


class Writer:
    """Reads one generation, writes it down, and stores it from time to time.

    `grow` stores the response, the events from a number on, and at its end what its conversation
    gets; it says whether it is still wanted, and may raise `StoreUnavailable`.
    """

    def __init__(self, generation: EventSource, draft: Draft, grow: Grow) -> None:
        self.draft = draft
        self.news = asyncio.Event()
        self._generation = generation
        self._grow = grow
        self._num_stored = len(draft.events)
        self._stored_at = asyncio.get_running_loop().time()
        self._pump: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Returns when all is written, or somebody wants it no more. Cancelled, it leaves the
        response behind as lost."""
        async with self._generation:
            self._pump = asyncio.create_task(self._read())
            try:
                await self._keep_storing(self._pump)
            except asyncio.CancelledError:
                await self._store(ResponseState.LOST)
                raise
            finally:
                self._pump.cancel()
                await asyncio.gather(self._pump, return_exceptions=True)

    def stop(self) -> None:
        """Nobody wants it on."""
        if self._pump is not None:
            self._pump.cancel()

    def tell(self) -> None:
        """Wake whoever waits for `news`, which is another event afterwards."""
        self.news.set()
        self.news = asyncio.Event()

    async def _keep_storing(self, pump: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while not pump.done():
            await asyncio.wait({pump}, timeout=FLUSH_SECONDS)
            grew = len(self.draft.events) > self._num_stored
            is_due = grew or loop.time() - self._stored_at >= HEARTBEAT_SECONDS
            if not pump.done() and is_due and not await self._store(ResponseState.WRITING):
                return
        if pump.cancelled():
            return
        if (error := pump.exception()) is not None:  # a bug: nobody waits to be told of it
            log.error("response_not_written", exc_info=error)
            self.draft.take(Failed(GenerationFailed("The answer could not be written down.")))
        await self._store(ResponseState.ENDED)

    async def _read(self) -> None:
        async for event in self._generation:
            self.draft.take(event)
            self.tell()
            if isinstance(event, Finished | Failed):
                return
        self.draft.take(Failed(GenerationFailed("The answer ended without saying why.")))

    async def _store(self, state: ResponseState) -> bool:
        """Whether it is still wanted, as far as is known."""
        events = self.draft.events[self._num_stored :]
        turn = self.draft.turn() if state is ResponseState.ENDED else None
        try:
            wanted = await self._grow(self.draft.kept(state), self._num_stored, events, turn)
        except StoreUnavailable as error:
            log.warning("response_not_stored", state=state.value, error=error.message)
            return state is ResponseState.WRITING
        self._num_stored += len(events)
        self._stored_at = asyncio.get_running_loop().time()
        return wanted
