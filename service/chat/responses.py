"""Answers that are kept, so that the next request need not repeat what came before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Protocol, Self

from service.chat.generate import Generation
from service.domain.access import Principal
from service.domain.conversation import KeptResponse
from service.domain.errors import ResponseNotFound, StoreUnavailable
from service.domain.events import Event, Failed, Finished

MAX_CHAIN = 1000


class ResponseStore(Protocol):
    """Keeps responses, each under its principal. All methods raise `StoreUnavailable`."""

    async def keep(self, principal_id: str, response: KeptResponse) -> None: ...

    async def chain(self, principal_id: str, response_id: str, most: int) -> list[KeptResponse]:
        """The response and those it goes on from, the oldest first; none where it is unknown."""
        ...

    async def forget(self, principal_id: str, response_id: str) -> bool: ...


class Responses:
    """A principal's kept responses. Raises `ResponseNotFound` for one that is not there."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def chain(self, principal: Principal, response_id: str) -> list[KeptResponse]:
        """The response and all that came before, the oldest first."""
        found = await self._store.chain(principal.id, response_id, MAX_CHAIN)
        if not found:
            raise _unknown(response_id)
        return found

    async def keep(self, principal: Principal, response: KeptResponse) -> None:
        await self._store.keep(principal.id, response)

    async def forget(self, principal: Principal, response_id: str) -> None:
        if not await self._store.forget(principal.id, response_id):
            raise _unknown(response_id)


class KeptGeneration:
    """A generation whose whole answer is in the store before its last event comes.

    `describe` makes of every event what is to be told of it, and of the last one what is kept;
    None keeps nothing.
    """

    def __init__(
        self,
        generation: Generation,
        responses: Responses,
        principal: Principal,
        describe: Callable[[Event], KeptResponse | None],
    ) -> None:
        self._generation = generation
        self._responses = responses
        self._principal = principal
        self._describe = describe

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._generation:
            kept = self._describe(event)
            if isinstance(event, Finished) and kept is not None:
                try:
                    await self._responses.keep(self._principal, kept)
                except StoreUnavailable as error:
                    yield Failed(error)
                    return
            yield event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._generation.aclose()


def _unknown(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(f"There is no response `{response_id[:200]}`.")
