"""What a principal's answers may take: tokens by the minute, day and month, and how many at once.

Tokens are set aside before an answer begins and settled when it ends, so no limit is ever
exceeded, in all workers together and across restarts, and whoever is alone can have all of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from service import metrics
from service.domain.access import Grant, Limits, Need, Principal, Spent, Standing
from service.domain.errors import (
    Forbidden,
    InvalidRequest,
    QuotaSpent,
    RateLimited,
    StoreUnavailable,
)
from service.domain.events import Usage
from service.log import get_logger

RENEW_SECONDS = 20.0
LEAST_ANSWER = 16  # tokens; where less is left for an answer whose length nobody said, none begins

_log = get_logger(__name__)
_PERIODS = {
    "tokens_per_minute": "tokens a minute",
    "tokens_per_day": "tokens a day",
    "tokens_per_month": "tokens a month",
    "streams": "answers at once",
}
_QUOTAS = ("tokens_per_day", "tokens_per_month")

# Where the middleware that answers a request wants to hear what is left of its limits.
REPORT: ContextVar[dict[str, Standing] | None] = ContextVar("REPORT", default=None)


class SpendingStore(Protocol):
    """Keeps what answers take. All methods raise `StoreUnavailable`."""

    async def reserve(self, principal_id: str, limits: Limits, need: Need) -> Grant:
        """Set aside what is needed, or as much of it as is left."""
        ...

    async def settle(
        self, principal_id: str, key: int | None, model: str, taken: Usage, *, began: bool = True
    ) -> None:
        """Count what was taken instead of what was set aside; what is never settled or renewed
        counts as what was set aside."""
        ...

    async def renew(self, keys: Sequence[int]) -> None: ...

    async def spent(self, principal_id: str | None, since_day: str) -> list[Spent]: ...


@dataclass(frozen=True, slots=True)
class Reservation:
    """Set aside for one answer: `max_tokens` of it at most; `key` None where nothing is limited."""

    key: int | None
    max_tokens: int | None


class Spending:
    """One per worker. Raises `RateLimited`, `Forbidden` and `InvalidRequest` before anything has
    begun."""

    def __init__(self, store: SpendingStore) -> None:
        self._store = store
        self._running: set[int] = set()
        self._renewal: asyncio.Task[None] | None = None

    def bound(self, principal: Principal, model: str, max_tokens: int | None) -> int | None:
        """How long an answer may be by itself. Raises `Forbidden` for a model that the principal
        may not use."""
        limits = principal.limits
        if limits.models and model not in limits.models:
            raise Forbidden(
                f"This access token may use {', '.join(limits.models)}, and {model} answers now."
            )
        if limits.answer_tokens is None:
            return max_tokens
        return min(limits.answer_tokens, max_tokens or limits.answer_tokens)

    async def reserve(
        self,
        principal: Principal,
        model: str,
        prompt_tokens: int,
        max_tokens: int | None,
        room: int,
    ) -> Reservation:
        """Set aside what a prompt and its answer may take; `room` is what the context leaves."""
        limits = principal.limits
        if limits.prompt_tokens is not None and prompt_tokens > limits.prompt_tokens:
            raise InvalidRequest(
                f"The prompt has {prompt_tokens} tokens; this access token may send "
                f"{limits.prompt_tokens} at a time."
            )
        if not limits.spends:
            return Reservation(None, max_tokens)
        wanted = room if max_tokens is None else min(max_tokens, room)
        least = prompt_tokens + (min(LEAST_ANSWER, room) if max_tokens is None else wanted)
        _refuse_impossible(limits, least)
        need = Need(model, prompt_tokens, least, prompt_tokens + wanted)
        grant = await self._store.reserve(principal.id, limits, need)
        _report(grant)
        if grant.key is None:
            raise _refusal(grant, least)
        self._running.add(grant.key)
        self._begin_renewing()
        return Reservation(grant.key, grant.tokens - prompt_tokens)

    async def settle(
        self,
        principal: Principal,
        reservation: Reservation,
        model: str,
        taken: Usage,
        *,
        began: bool = True,
    ) -> None:
        """Count what an answer took. A store that can't be written now loses the count, not the
        answer; where something was set aside, that is counted when its lease ends."""
        if reservation.key is not None:
            self._running.discard(reservation.key)
        try:
            await self._store.settle(principal.id, reservation.key, model, taken, began=began)
        except StoreUnavailable as error:
            _log.warning("usage_lost", reason=error.message)

    async def spent(self, principal_id: str | None, since_day: str) -> list[Spent]:
        return await self._store.spent(principal_id, since_day)

    async def aclose(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _begin_renewing(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Say that what runs still runs, until nothing does."""
        while self._running:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._store.renew(sorted(self._running))
            except StoreUnavailable as error:
                _log.warning("lease_not_renewed", reason=error.message)


def since(days: int, now: float) -> str:
    """The day, in UTC, with which the last `days` days begin."""
    return datetime.fromtimestamp(now - 86400.0 * (days - 1), UTC).strftime("%Y-%m-%d")


def _refuse_impossible(limits: Limits, least: int) -> None:
    """Raises `InvalidRequest` for what no waiting will make possible."""
    for name, words in _PERIODS.items():
        limit = getattr(limits, name)
        if name != "streams" and limit is not None and least > limit:
            raise InvalidRequest(
                f"The prompt and its answer may take {least} tokens; you have {limit} "
                f"{words}. Ask for fewer with max_tokens.",
                param="max_tokens",
            )


def _refusal(grant: Grant, least: int) -> RateLimited:
    standings, seconds = grant.standings, grant.wait_seconds
    needed = {name: 1 if name == "streams" else least for name in standings}
    short = next(name for name in standings if standings[name].left < needed[name])
    metrics.RATE_LIMITED.labels(short).inc()
    limit, left, words = standings[short].limit, standings[short].left, _PERIODS[short]
    have = "are under way" if short == "streams" else f"{max(0, left)} of them are left"
    kind = QuotaSpent if short in _QUOTAS else RateLimited
    return kind(
        f"You have {limit} {words}; {have}, and this request takes "
        f"{needed[short]}. Try again in {math.ceil(seconds)} s.",
        retry_after_seconds=seconds,
    )


def _report(grant: Grant) -> None:
    """Tell the middleware how the limits stand now, where it listens."""
    report = REPORT.get()
    if report is None:
        return
    for name, before in grant.standings.items():
        taken = 0 if grant.key is None else 1 if name == "streams" else grant.tokens
        report[name] = replace(before, left=max(0, before.left - taken))
