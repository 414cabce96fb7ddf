"""What was said, looked at as a whole: listed, read, searched, copied and forgotten."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, literal, select, text, update

from service.domain.chat import Message, Role
from service.domain.conversation import (
    AnswerState,
    ConversationSummary,
    KeptMessage,
    SearchHit,
)
from service.store.conversations import ABANDONED_SECONDS, Transactions, named
from service.store.tables import conversations, messages, responses

_SEARCH = """
SELECT conversations.id, conversations.title, messages.turn, messages.role, messages.created_at,
       snippet(messages_text, 1, '', '', ' … ', 24) AS snippet
FROM messages_text
JOIN messages ON messages.key = messages_text.rowid
JOIN conversations ON conversations.key = messages.conversation_key
WHERE messages_text MATCH :wanted AND conversations.principal_id = :principal_id
ORDER BY messages_text.rowid DESC LIMIT :most
"""


class SqlArchive:
    """An `ArchiveStore` on the same tables as `SqlConversations`. All methods raise
    `StoreUnavailable`."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def create(self, principal_id: str, conversation_id: str, title: str) -> bool:
        """Make an empty conversation; False where there is one of that name."""
        now = self._clock()
        row = {"principal_id": principal_id, "id": conversation_id, "title": title}

        def work(connection: Connection) -> bool:
            if _find(connection, principal_id, conversation_id) is not None:
                return False
            connection.execute(insert(conversations).values(**row, created_at=now, updated_at=now))
            return True

        return await self._database.write(work)

    async def summaries(
        self, principal_id: str, most: int, before: float | None = None
    ) -> list[ConversationSummary]:
        """The last used first; `before` goes on behind a page's last `updated_at`."""
        query = _summaries().where(conversations.c.principal_id == principal_id)
        if before is not None:
            query = query.where(conversations.c.updated_at < before)
        newest = conversations.c.updated_at.desc(), conversations.c.key.desc()
        query = query.order_by(*newest).limit(most)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_to_summary(row) for row in rows]

    async def summary(self, principal_id: str, conversation_id: str) -> ConversationSummary | None:
        query = _summaries().where(named(principal_id, conversation_id))
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else _to_summary(row)

    async def messages(
        self, principal_id: str, conversation_id: str, most: int, after: int = 0
    ) -> list[KeptMessage]:
        """In the order in which they were said, from behind message `after`; those of an unknown
        conversation are none. An answer that nobody writes any more counts as cut."""
        query = (
            select(messages)
            .join(conversations, conversations.c.key == messages.c.conversation_key)
            .where(named(principal_id, conversation_id), messages.c.key > after)
            .order_by(messages.c.key)
            .limit(most)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        abandoned = self._clock() - ABANDONED_SECONDS
        return [_to_message(row, abandoned) for row in rows]

    async def rename(self, principal_id: str, conversation_id: str, title: str) -> bool:
        renamed = (
            update(conversations).where(named(principal_id, conversation_id)).values(title=title)
        )
        return await self._database.write(lambda c: c.execute(renamed).rowcount > 0)

    async def stop(self, principal_id: str, conversation_id: str) -> int | None:
        """Want the answers that are being written no more; how many there were, None for an
        unknown conversation."""

        def work(connection: Connection) -> int | None:
            key = _find(connection, principal_id, conversation_id)
            if key is None:
                return None
            growing = and_(
                messages.c.conversation_key == key,
                messages.c.state == AnswerState.WRITING.value,
                messages.c.updated_at >= self._clock() - ABANDONED_SECONDS,
            )
            return connection.execute(
                update(messages).where(growing).values(stop_wanted=1)
            ).rowcount

        return await self._database.write(work)

    async def fork(
        self, principal_id: str, conversation_id: str, new_id: str, last_turn: int | None
    ) -> bool:
        """Copy a conversation up to turn `last_turn`, or all of it; answers that are being written
        are left out. False when there is none to copy."""
        now = self._clock()

        def work(connection: Connection) -> bool:
            source = connection.execute(
                select(conversations).where(named(principal_id, conversation_id))
            ).first()
            if source is None:
                return False
            row = {"principal_id": principal_id, "id": new_id, "title": source.title}
            row["metadata"] = source.metadata
            made = connection.execute(
                insert(conversations).values(**row, created_at=now, updated_at=now)
            ).inserted_primary_key
            ended = select(messages.c.turn).where(
                messages.c.conversation_key == source.key,
                messages.c.role == Role.ASSISTANT.value,
                messages.c.state != AnswerState.WRITING.value,
            )
            if last_turn is not None:
                ended = ended.where(messages.c.turn <= last_turn)
            copied = [c for c in messages.c if c.name not in ("key", "conversation_key")]
            rows = select(literal(made[0] if made else None), *copied).where(
                messages.c.conversation_key == source.key, messages.c.turn.in_(ended)
            )
            names = ["conversation_key", *(c.name for c in copied)]
            connection.execute(insert(messages).from_select(names, rows.order_by(messages.c.key)))
            return True

        return await self._database.write(work)

    async def add_messages(
        self, principal_id: str, conversation_id: str, said: Sequence[KeptMessage]
    ) -> None:
        """Fill a conversation that was just made with what was said elsewhere."""

        def work(connection: Connection) -> None:
            key = _find(connection, principal_id, conversation_id)
            rows = [_to_row(message) | {"conversation_key": key} for message in said]
            if rows:
                connection.execute(insert(messages), rows)

        await self._database.write(work)

    async def search(self, principal_id: str, words: Sequence[str], most: int) -> list[SearchHit]:
        """Messages that have all `words`, the newest first; the last may be the beginning of a
        word."""
        wanted = " AND ".join([f'principal : "{_quoted(principal_id)}"', *_terms(words)])
        facts = {"wanted": wanted, "principal_id": principal_id, "most": most}
        rows = await self._database.read(
            lambda connection: connection.execute(text(_SEARCH), facts).all()
        )
        return [
            SearchHit(r.id, r.title, r.turn, Role(r.role), r.snippet, r.created_at) for r in rows
        ]

    async def erase(self, principal_id: str) -> int:
        """Forget all conversations and kept responses of a principal; how many conversations."""
        gone = delete(conversations).where(conversations.c.principal_id == principal_id)
        responses_gone = delete(responses).where(responses.c.principal_id == principal_id)

        def work(connection: Connection) -> int:
            connection.execute(responses_gone)
            return connection.execute(gone).rowcount

        return await self._database.erase(work)

    async def forget_unused(self, seconds: float) -> int:
        """Forget conversations that nobody has used for so long, and responses that old; how many
        conversations."""
        before = self._clock() - seconds
        gone = delete(conversations).where(conversations.c.updated_at < before)
        responses_gone = delete(responses).where(responses.c.created_at < before)

        def work(connection: Connection) -> int:
            connection.execute(responses_gone)
            return connection.execute(gone).rowcount

        return await self._database.erase(work)


def _find(connection: Connection, principal_id: str, conversation_id: str) -> int | None:
    return connection.scalar(
        select(conversations.c.key).where(named(principal_id, conversation_id))
    )


def _summaries() -> Any:
    num_turns = (
        select(func.count())
        .where(
            messages.c.conversation_key == conversations.c.key,
            messages.c.role == Role.USER.value,
        )
        .scalar_subquery()
    )
    return select(conversations, num_turns.label("num_turns"))


def _to_summary(row: Row[Any]) -> ConversationSummary:
    times = row.created_at, row.updated_at
    return ConversationSummary(row.id, row.title, *times, row.num_turns, json.loads(row.metadata))


def _to_message(row: Row[Any], abandoned: float) -> KeptMessage:
    state = AnswerState(row.state)
    if state is AnswerState.WRITING and row.updated_at < abandoned:
        state = AnswerState.CUT
    message = Message(Role(row.role), row.content, reasoning=row.reasoning)
    return KeptMessage(row.key, row.turn, message, state, row.created_at, row.items)


def _to_row(kept: KeptMessage) -> dict[str, Any]:
    return {
        "turn": kept.turn,
        "role": kept.message.role.value,
        "content": kept.message.content,
        "reasoning": kept.message.reasoning,
        "state": kept.state.value,
        "created_at": kept.created_at,
        "updated_at": kept.created_at,
    }


def _terms(words: Sequence[str]) -> list[str]:
    """Each word as a phrase, which nothing in it can make an operator."""
    phrases = [f'"{_quoted(word)}"' for word in words]
    if phrases:
        phrases[-1] += "*"
    return [f"content : {phrase}" for phrase in phrases]


def _quoted(word: str) -> str:
    return word.replace('"', '""')
