"""How many requests a principal may make in any minute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from service import metrics
from service.domain.errors import RateLimited

WINDOW_SECONDS = 60.0


class AdmissionStore(Protocol):
    """Keeps when requests were admitted. Raises `StoreUnavailable`."""

    async def admit(
        self, principal_id: str, window_seconds: float, limit: int
    ) -> tuple[bool, int, float]:
        """Keep a request if fewer than `limit` were kept in the last `window_seconds`.

        Whether it was kept, how many count now, and in how many seconds the oldest won't.
        """
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a limit says of one request: `num_left` after it, another one in `next_seconds`."""

    admitted: bool
    limit: int
    num_left: int
    next_seconds: float

    def demand(self) -> None:
        """Raises `RateLimited` where the request was one too many."""
        if not self.admitted:
            metrics.RATE_LIMITED.labels("requests_per_minute").inc()
            raise RateLimited(
                f"You may make {self.limit} requests a minute, and have made them; "
                f"the next one is possible in {math.ceil(self.next_seconds)} s.",
                retry_after_seconds=self.next_seconds,
            )


class RequestLimits:
    """Exact over any 60 seconds, in all workers together and across restarts."""

    def __init__(self, store: AdmissionStore) -> None:
        self._store = store

    async def spend(self, principal_id: str, limit: int) -> Allowance:
        """Count one request; one too many is not counted."""
        admitted, count, seconds = await self._store.admit(principal_id, WINDOW_SECONDS, limit)
        return Allowance(admitted, limit, max(0, limit - count), seconds)
