"""Which models principals have chosen, as rows."""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, insert, select

from service.store.conversations import Transactions
from service.store.tables import preferences


class SqlPreferences:
    """A `PreferenceStore`. All methods raise `StoreUnavailable`."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def choose(self, principal_id: str, conversation_id: str, model: str | None) -> None:
        """Keep what was chosen; None: nothing is. `conversation_id` '' means all of them."""
        mine = and_(
            preferences.c.principal_id == principal_id,
            preferences.c.conversation_id == conversation_id,
        )
        row = {"principal_id": principal_id, "conversation_id": conversation_id}

        def work(connection: Connection) -> None:
            connection.execute(delete(preferences).where(mine))
            if model is not None:
                connection.execute(insert(preferences).values(**row, model=model))

        await self._database.write(work)

    async def chosen(self, principal_id: str, conversation_id: str) -> str | None:
        """What was chosen for the conversation, or else for all; None where nothing was."""
        query = (
            select(preferences.c.model)
            .where(
                preferences.c.principal_id == principal_id,
                preferences.c.conversation_id.in_(("", conversation_id)),
            )
            .order_by(preferences.c.conversation_id.desc())
            .limit(1)
        )
        return await self._database.read(lambda connection: connection.scalar(query))
