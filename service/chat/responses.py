"""Answers that are kept, so that the next request need not repeat what came before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from service.chat.background import Draft, Writer
from service.chat.generate import EventSource
from service.domain.access import Principal
from service.domain.conversation import KeptResponse, KeptTurn, ResponseState
from service.domain.errors import (
    InvalidRequest,
    ResponseNotFound,
    StoreUnavailable,
)
from service.domain.events import Event, Failed, Finished

MAX_CHAIN = 1000
WATCH_SECONDS = 0.25


class ResponseStore(Protocol):
    """Keeps responses, each under its principal. All methods raise `StoreUnavailable`."""

    async def keep(
        self,
        principal_id: str,
        response: KeptResponse,
        events: Sequence[str] = (),
        turn: KeptTurn | None = None,
    ) -> None:
        """A new response, what was told of it so far, and what its conversation gets of it, if
        that is still there."""
        ...

    async def grow(
        self,
        principal_id: str,
        response: KeptResponse,
        number: int,
        events: Sequence[str],
        turn: KeptTurn | None = None,
    ) -> bool:
        """Replace a response that is being written, and add events from `number` on. At its end,
        its conversation gets `turn`, and waits no more. Whether it was still wanted."""
        ...

    async def cancel(self, principal_id: str, response_id: str) -> None:
        """Want it no more, if it is still being written; nor does its conversation wait for it."""
        ...

    async def chain(self, principal_id: str, response_id: str, most: int) -> list[KeptResponse]:
        """The response and those it goes on from, the oldest first; none where it is unknown."""
        ...

    async def holding(self, principal_id: str, item_id: str) -> KeptResponse | None:
        """The latest response that was asked or answered an item with this id."""
        ...

    async def growth(
        self, principal_id: str, response_id: str, number: int
    ) -> tuple[KeptResponse, list[str]] | None:
        """The response as it is now, and its events from `number` on; None where there is none."""
        ...

    async def forget(self, principal_id: str, response_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Growth:
    """What was told of a response since the last look, and how it is kept; `kept` is None while
    it is being written here."""

    events: Sequence[str]
    kept: KeptResponse | None


class Responses:
    """A principal's kept responses. Raises `ResponseNotFound` for one that is not there."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._writers: dict[tuple[str, str], Writer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def chain(
        self, principal: Principal, response_id: str, param: str | None = None
    ) -> list[KeptResponse]:
        """The response and all that came before, the oldest first."""
        found = await self._store.chain(principal.id, response_id, MAX_CHAIN)
        if not found:
            raise _unknown(response_id, param)
        return found

    async def item(self, principal: Principal, item_id: str, param: str) -> dict[str, Any]:
        """What a kept response was asked or answered, by its id. Raises `InvalidRequest`."""
        kept = await self._store.holding(principal.id, item_id)
        told = [] if kept is None else [*json.loads(kept.input), *json.loads(kept.reply)["output"]]
        found: list[dict[str, Any]] = [one for one in told if one.get("id") == item_id]
        if not found:
            raise InvalidRequest(
                f"{param} is {item_id[:80]!r}; no kept response has an item with that id.",
                param=param,
            )
        return found[0]

    async def keep(self, principal: Principal, draft: Draft) -> None:
        """An answer that is there, in the store and in its conversation."""
        kept = draft.kept(ResponseState.ENDED)
        await self._store.keep(principal.id, kept, draft.events, draft.turn())

    async def forget(self, principal: Principal, response_id: str) -> None:
        """One that is being written ends."""
        if not await self._store.forget(principal.id, response_id):
            raise _unknown(response_id)
        self._stop(principal, response_id)

    async def cancel(self, principal: Principal, response_id: str) -> KeptResponse:
        """End it, whichever worker writes it; as it is then."""
        await self._store.cancel(principal.id, response_id)
        self._stop(principal, response_id)
        return (await self.chain(principal, response_id))[-1]

    async def begin(
        self, generation: EventSource, draft: Draft, principal: Principal, holding: AsyncExitStack
    ) -> None:
        """Have the answer written in the background, whatever becomes of who asked; `holding` is
        closed when it has ended. Raises `StoreUnavailable`, and then closes the generation."""
        begun = draft.kept(ResponseState.WRITING)
        writer = Writer(generation, draft, partial(self._store.grow, principal.id))
        async with AsyncExitStack() as on_failure:
            await on_failure.enter_async_context(holding)
            await on_failure.enter_async_context(generation)
            await self._store.keep(principal.id, begun, draft.events)
            on_failure.pop_all()
        self._writers[principal.id, begun.id] = writer
        task = asyncio.create_task(self._write(writer, (principal.id, begun.id), holding))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def follow(
        self, principal: Principal, response_id: str, number: int = 0
    ) -> AsyncIterator[Growth]:
        """How it grows, from event `number` on until it has ended, whichever worker writes it."""
        kept: KeptResponse | None = None
        while kept is None or kept.state is ResponseState.WRITING:
            writer = self._writers.get((principal.id, response_id))
            if writer is not None:
                news, events, kept = writer.news, writer.draft.events[number:], None
            else:
                found = await self._store.growth(principal.id, response_id, number)
                if found is None:
                    raise _unknown(response_id)
                news, (kept, events) = None, found
            number += len(events)
            yield Growth(events, kept)
            if news is not None:
                await news.wait()
            elif kept is not None and kept.state is ResponseState.WRITING:
                await asyncio.sleep(WATCH_SECONDS)

    async def aclose(self) -> None:
        """Give up what is still being written: it is lost, and says so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop(self, principal: Principal, response_id: str) -> None:
        writer = self._writers.get((principal.id, response_id))
        if writer is not None:
            writer.stop()

    async def _write(self, writer: Writer, key: tuple[str, str], holding: AsyncExitStack) -> None:
        try:
            async with holding:
                await writer.run()
        finally:
            del self._writers[key]
            writer.tell()


class KeptGeneration:
    """A generation whose whole answer is in the store, and `holding` closed, before its last event
    comes; closed early, it closes that, too."""

    def __init__(
        self,
        generation: EventSource,
        responses: Responses,
        principal: Principal,
        draft: Draft,
        holding: AsyncExitStack,
    ) -> None:
        self._generation = generation
        self._responses = responses
        self._principal = principal
        self._draft = draft
        self._holding = holding

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._generation:
            self._draft.take(event)
            if isinstance(event, Finished | Failed):
                yield await self._last(event)
                return
            yield event

    async def _last(self, event: Finished | Failed) -> Event:
        """The event that ends it, when whoever hears it may go on."""
        async with self._holding:
            if isinstance(event, Finished) and self._draft.is_kept:
                try:
                    await self._responses.keep(self._principal, self._draft)
                except StoreUnavailable as error:
                    return Failed(error)
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with self._holding:
            await self._generation.__aexit__(kind, error, trace)


def _unknown(response_id: str, param: str | None = None) -> ResponseNotFound:
    return ResponseNotFound(f"There is no response `{response_id[:200]}`.", param=param)
