"""Kept responses as rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select

from service.domain.conversation import KeptResponse
from service.store.conversations import Transactions
from service.store.tables import responses as rows


class SqlResponses:
    """A `ResponseStore`. All methods raise `StoreUnavailable`."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def keep(self, principal_id: str, response: KeptResponse) -> None:
        row = {
            "principal_id": principal_id,
            "id": response.id,
            "previous_id": response.previous_id,
            "created_at": self._clock(),
            "input": response.input,
            "reply": response.reply,
        }
        await self._database.write(lambda connection: connection.execute(insert(rows).values(row)))

    async def chain(self, principal_id: str, response_id: str, most: int) -> list[KeptResponse]:
        """The response and those it goes on from, the oldest first; none where it is unknown."""

        def work(connection: Connection) -> list[KeptResponse]:
            found: list[KeptResponse] = []
            wanted: str | None = response_id
            while wanted is not None and len(found) < most:
                query = select(rows).where(_named(principal_id, wanted))
                row = connection.execute(query).first()
                if row is None:
                    break
                found.append(KeptResponse(row.id, row.previous_id, row.input, row.reply))
                wanted = row.previous_id
            return found[::-1]

        return await self._database.read(work)

    async def forget(self, principal_id: str, response_id: str) -> bool:
        """Whether there was one."""
        gone = delete(rows).where(_named(principal_id, response_id))
        return await self._database.write(lambda c: c.execute(gone).rowcount > 0)


def _named(principal_id: str, response_id: str) -> Any:
    return and_(rows.c.principal_id == principal_id, rows.c.id == response_id)
