"""Wrong access tokens as rows, for as long as they count."""

from __future__ import annotations

import sqlite3

from service.store.direct import Counters

# GCRA: `paid_until` is when all failures up to now would be paid for, one each `seconds_each`. What
# lies further ahead than can be was kept before somebody set the clock back.
_FORGET_PAID = "DELETE FROM failures WHERE paid_until <= ? OR paid_until > ?"
_FAIL = """
INSERT INTO failures (network, paid_until) VALUES (?, ?)
ON CONFLICT (network) DO UPDATE SET paid_until = paid_until + ? WHERE paid_until + ? <= ?
RETURNING paid_until
"""
_PAID_UNTIL = "SELECT paid_until FROM failures WHERE network = ?"


class SqlFailures(Counters):
    """A `FailureStore`."""

    async def fail(self, network: str, seconds_each: float, burst: int) -> float:
        """Note a failure, unless it came too early; how many seconds too early, 0 if it did not."""

        def work(connection: sqlite3.Connection) -> float:
            now = self._clock()
            most = now + burst * seconds_each
            connection.execute(_FORGET_PAID, (now, most))
            row = (network, now + seconds_each, seconds_each, seconds_each, most)
            if connection.execute(_FAIL, row).fetchone() is not None:
                return 0.0
            paid_until: float = connection.execute(_PAID_UNTIL, (network,)).fetchone()[0]
            return paid_until + seconds_each - most

        return await self._database.write_directly(work)
