"""Every answer is set aside for before it begins, and counted when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Protocol

import msgspec

from service.auth.spending import Reservation, Spending
from service.chat.terms import on_terms
from service.domain.access import Principal
from service.domain.events import Usage
from service.ipc.client import EngineClient, EngineStream
from service.ipc.messages import Accepted, Delta, Done, Queued, Submit


class Accounting(Protocol):
    """How a job gets to an engine."""

    async def submit(self, client: EngineClient, job: Submit, principal: Principal) -> EngineStream:
        """As `EngineClient.submit`, within what the principal may spend."""
        ...


class Unaccounted:
    """Nobody counts."""

    async def submit(self, client: EngineClient, job: Submit, principal: Principal) -> EngineStream:
        return await client.submit(on_terms(job))


class Accounts:
    """Counts in `spending`; no answer takes longer than `max_seconds`, where that is not 0."""

    def __init__(self, spending: Spending, max_seconds: float = 0.0) -> None:
        self._spending = spending
        self._max_seconds = max_seconds

    async def submit(self, client: EngineClient, job: Submit, principal: Principal) -> EngineStream:
        model, limits = client.model.name, principal.limits
        max_tokens = self._spending.bound(principal, model, job.max_tokens)
        reservation = Reservation(None, max_tokens)
        if limits.spends or limits.prompt_tokens is not None:
            prompt_tokens = await client.count_tokens(job.prompt, job.pictures)
            room = max(1, client.model.context_length - prompt_tokens)
            reservation = await self._spending.reserve(
                principal, model, prompt_tokens, max_tokens, room
            )
        allowed = msgspec.structs.replace(
            job, max_tokens=reservation.max_tokens, weight=limits.weight
        )
        async with AsyncExitStack() as on_failure:
            if reservation.key is not None:
                settle = partial(self._spending.settle, began=False)
                on_failure.push_async_callback(settle, principal, reservation, model, Usage())
            stream = await client.submit(on_terms(allowed, self._max_seconds))
            on_failure.pop_all()
        return CountedStream(stream, self._spending, principal, reservation, model)


class CountedStream:
    """An `EngineStream` that is counted when it is closed, whichever end it took."""

    def __init__(
        self,
        stream: EngineStream,
        spending: Spending,
        principal: Principal,
        reservation: Reservation,
        model: str,
    ) -> None:
        self.accepted: Accepted = stream.accepted
        self._stream = stream
        self._spending = spending
        self._principal = principal
        self._reservation = reservation
        self._model = model
        self._taken = Usage(prompt_tokens=stream.accepted.prompt_tokens)
        self._settled = False

    async def __aiter__(self) -> AsyncIterator[Queued | Delta | Done]:
        async for message in self._stream:
            if isinstance(message, Done):
                self._taken = message.usage
            elif isinstance(message, Delta):
                written = self._taken.completion_tokens + message.num_tokens
                self._taken = replace(self._taken, completion_tokens=written)
            yield message

    def stop(self) -> None:
        self._stream.stop()

    async def aclose(self) -> None:
        await self._stream.aclose()
        if not self._settled:
            self._settled = True
            await self._spending.settle(
                self._principal, self._reservation, self._model, self._taken
            )
