"""Messages that are more than text, as rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, func, insert, or_, select, update

from service.domain.conversation import KeptMessage, to_title
from service.store.conversations import Transactions, named
from service.store.tables import conversations, messages

HELD_SECONDS = 15.0


class SqlItems:
    """An `ItemStore` on the same tables as `SqlConversations`. All methods raise
    `StoreUnavailable`."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def append(
        self, principal_id: str, conversation_id: str, turns: Sequence[Sequence[KeptMessage]]
    ) -> bool:
        """Add turns behind all others, counted anew; False for an unknown conversation. One that
        has no title yet is called by what is said first."""
        conversation, now = named(principal_id, conversation_id), self._clock()
        return await self._database.write(
            lambda connection: append_turns(connection, conversation, turns, now)
        )

    async def hold(self, principal_id: str, conversation_id: str, answer_id: str) -> bool | None:
        """Have a conversation wait for an answer, for `HELD_SECONDS`; False where it waits for
        another one, None for an unknown conversation."""
        conversation, now = named(principal_id, conversation_id), self._clock()
        free = or_(conversations.c.held_by.is_(None), conversations.c.held_until < now)
        held = update(conversations).where(conversation, free)
        held = held.values(held_by=answer_id, held_until=now + HELD_SECONDS)

        def work(connection: Connection) -> bool | None:
            if connection.execute(held).rowcount > 0:
                return True
            is_there = connection.scalar(select(conversations.c.key).where(conversation))
            return None if is_there is None else False

        return await self._database.write(work)

    async def hold_on(self, principal_id: str, answer_id: str) -> None:
        """It is still being written; nothing happens where nobody waits for it any more."""
        until = self._clock() + HELD_SECONDS
        held = update(conversations).where(_held(principal_id, answer_id)).values(held_until=until)
        await self._database.write(lambda connection: connection.execute(held))

    async def let_go(self, principal_id: str, answer_id: str) -> None:
        await self._database.write(lambda connection: let_go(connection, principal_id, answer_id))

    async def replace(self, principal_id: str, conversation_id: str, message: KeptMessage) -> None:
        """Change the text and the items of the message with this key."""
        key = select(conversations.c.key).where(named(principal_id, conversation_id))
        changed = (
            update(messages)
            .where(
                and_(
                    messages.c.key == message.key,
                    messages.c.conversation_key == key.scalar_subquery(),
                )
            )
            .values(content=message.message.content, items=message.items)
        )
        await self._database.write(lambda connection: connection.execute(changed))

    async def describe(
        self, principal_id: str, conversation_id: str, metadata: dict[str, str]
    ) -> bool:
        """Replace a conversation's metadata; False for an unknown one."""
        described = (
            update(conversations)
            .where(named(principal_id, conversation_id))
            .values(metadata=json.dumps(metadata))
        )
        return await self._database.write(lambda c: c.execute(described).rowcount > 0)


def append_turns(
    connection: Connection, conversation: Any, turns: Sequence[Sequence[KeptMessage]], now: float
) -> bool:
    """As `SqlItems.append`, where the condition `conversation` holds."""
    title = next((to_title(m.message.content) for turn in turns for m in turn), "")
    key = connection.scalar(select(conversations.c.key).where(conversation))
    if key is None:
        return False
    last = connection.scalar(
        select(func.max(messages.c.turn)).where(messages.c.conversation_key == key)
    )
    rows = [
        _to_row(message, now) | {"conversation_key": key, "turn": number}
        for number, turn in enumerate(turns, (last or 0) + 1)
        for message in turn
    ]
    if rows:
        connection.execute(insert(messages), rows)
    named_so = case((conversations.c.title == "", title), else_=conversations.c.title)
    touched = update(conversations).where(conversations.c.key == key)
    connection.execute(touched.values(updated_at=now, title=named_so))
    return True


def let_go(connection: Connection, principal_id: str, answer_id: str) -> None:
    """No conversation waits for this answer any more."""
    held = update(conversations).where(_held(principal_id, answer_id))
    connection.execute(held.values(held_by=None, held_until=0))


def _held(principal_id: str, answer_id: str) -> Any:
    return and_(conversations.c.principal_id == principal_id, conversations.c.held_by == answer_id)


def _to_row(kept: KeptMessage, now: float) -> dict[str, Any]:
    return {
        "role": kept.message.role.value,
        "content": kept.message.content,
        "reasoning": kept.message.reasoning,
        "state": kept.state.value,
        "created_at": now,
        "updated_at": now,
        "items": kept.items,
    }
