"""Admitted requests as rows, for as long as they count."""

from __future__ import annotations

import sqlite3

from service.store.direct import Counters

# What lies far ahead was kept before somebody set the clock back.
_FORGET_PASSED = "DELETE FROM admissions WHERE principal_id = ? AND (at <= ? OR at > ?)"
_COUNT = "SELECT count(*), min(at) FROM admissions WHERE principal_id = ?"
_ADMIT = "INSERT INTO admissions (principal_id, at) VALUES (?, ?)"


class SqlAdmissions(Counters):
    """An `AdmissionStore`."""

    async def admit(
        self, principal_id: str, window_seconds: float, limit: int
    ) -> tuple[bool, int, float]:
        """Keep a request if fewer than `limit` were kept in the last `window_seconds`.

        Whether it was kept, how many count now, and in how many seconds the oldest won't.
        """
        return await self._database.write_directly(
            lambda connection: self._admit(connection, principal_id, window_seconds, limit)
        )

    def _admit(
        self, connection: sqlite3.Connection, principal_id: str, window: float, limit: int
    ) -> tuple[bool, int, float]:
        now = self._clock()
        passed = (principal_id, now - window, now + window)
        connection.execute(_FORGET_PASSED, passed)
        count, oldest = connection.execute(_COUNT, (principal_id,)).fetchone()
        if count >= limit:
            return False, count, oldest + window - now
        connection.execute(_ADMIT, (principal_id, now))
        first = now if oldest is None else oldest
        return True, count + 1, first + window - now
