"""One answer in the store, while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState, History, LastExchange
from service.domain.errors import StoreUnavailable
from service.log import get_logger

# An answer that does not grow (it waits, or its prompt is read) says so often enough not to be
# taken for one that a crash has cut, and hears that it is wanted no more.
SIGN_OF_LIFE_FLUSHES = 3

log = get_logger(__name__)


class ConversationStore(Protocol):
    """Keeps conversations, each under its principal. All methods raise `StoreUnavailable`."""

    async def history(
        self, principal_id: str, conversation_id: str, max_exchanges: int
    ) -> History | None:
        """The last ended exchanges that have an answer; None for an unknown conversation."""
        ...

    async def add_turn(self, principal_id: str, conversation_id: str, text: str) -> int:
        """Keep what was said behind all turns so far, with an empty answer; returns the answer's
        key. Makes the conversation if there is none."""
        ...

    async def write_answer(self, key: int, answer: Message, state: AnswerState) -> bool:
        """Replace an answer; one that was deleted meanwhile stays so. Whether it is wanted on."""
        ...

    async def last_exchange(self, principal_id: str, conversation_id: str) -> LastExchange | None:
        """What was said last, and what was answered; None for an unknown conversation and for one
        in which nothing was said."""
        ...

    async def settle_abandoned(self) -> int:
        """Have answers that nobody writes any more count as cut; how many."""
        ...

    async def reopen(self, key: int) -> bool:
        """Have an ended answer be written on; False where it is being written, or gone."""
        ...

    async def delete(self, principal_id: str, conversation_id: str) -> bool: ...

    async def list_ids(self, principal_id: str) -> list[str]: ...

    async def aclose(self) -> None: ...


class AnswerKeeper:
    """Writes one growing answer to the store: `flush_seconds` after it has grown, and now and then
    while it does not.

    `stop` is called when the store says that nobody wants it on: somebody has stopped it from
    another device, or has deleted the conversation. `begun` is what there is of it already.
    """

    def __init__(
        self,
        store: ConversationStore,
        key: int,
        flush_seconds: float,
        stop: Callable[[], None],
        begun: Message | None = None,
    ) -> None:
        self._store = store
        self._stop = stop
        self._key = key
        self._flush_seconds = flush_seconds
        self._text: list[str] = [begun.content] if begun is not None else []
        self._reasoning: list[str] = [begun.reasoning] if begun is not None else []
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Task[None] | None = None
        self._grew = False
        self._finished = False
        self._plan_flush()

    def add(self, text: str = "", reasoning: str = "") -> None:
        self._text.append(text)
        self._reasoning.append(reasoning)
        if not self._grew:
            self._grew = True
            self._plan_flush()

    async def finish(self, state: AnswerState) -> None:
        """Write the whole answer for good; only the first call does anything. Raises
        `StoreUnavailable`."""
        if self._finished:
            return
        self._finished = True  # nothing is planned any more
        if self._timer is not None:
            self._timer.cancel()
        if self._flush is not None:
            await asyncio.wait({self._flush})  # it must not come after ours
        await self._write(state)

    def _plan_flush(self) -> None:
        if self._finished or self._flush is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        seconds = self._flush_seconds * (1 if self._grew else SIGN_OF_LIFE_FLUSHES)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer, self._grew = None, False
        self._flush = asyncio.create_task(self._flush_now())

    async def _flush_now(self) -> None:
        try:
            if not await self._write(AnswerState.WRITING):
                self._stop()
        except StoreUnavailable as error:
            log.warning("answer_not_stored_yet", error=error.message)
        self._flush = None
        self._plan_flush()

    async def _write(self, state: AnswerState) -> bool:
        self._text[:] = ["".join(self._text)]
        self._reasoning[:] = ["".join(self._reasoning)]
        answer = Message(Role.ASSISTANT, self._text[0], reasoning=self._reasoning[0])
        return await self._store.write_answer(self._key, answer, state)
