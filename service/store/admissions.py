"""Admitted requests as rows, for as long as they count."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, and_, delete, func, insert, or_, select

from service.store.conversations import Transactions
from service.store.tables import admissions as rows


class SqlAdmissions:
    """An `AdmissionStore`. One transaction reads the clock, decides and keeps, whichever worker
    asks; `clock` gives seconds since 1970."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def admit(
        self, principal_id: str, window_seconds: float, limit: int
    ) -> tuple[bool, int, float]:
        """Keep a request if fewer than `limit` were kept in the last `window_seconds`.

        Whether it was kept, how many count now, and in how many seconds the oldest won't.
        """
        return await self._database.write(
            lambda connection: self._admit(connection, principal_id, window_seconds, limit)
        )

    def _admit(
        self, connection: Connection, principal_id: str, window: float, limit: int
    ) -> tuple[bool, int, float]:
        now = self._clock()
        own = rows.c.principal_id == principal_id
        # What lies far ahead was kept before somebody set the clock back.
        passed = or_(rows.c.at <= now - window, rows.c.at > now + window)
        connection.execute(delete(rows).where(and_(own, passed)))
        count, oldest = connection.execute(
            select(func.count(), func.min(rows.c.at)).where(own)
        ).one()
        if count >= limit:
            return False, count, oldest + window - now
        connection.execute(insert(rows).values(principal_id=principal_id, at=now))
        first = now if oldest is None else oldest
        return True, count + 1, first + window - now
