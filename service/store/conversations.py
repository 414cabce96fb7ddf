"""Conversations as rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Row, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState, Exchange, History, LastExchange, to_title
from service.store.tables import conversations, messages

# Whoever writes an answer says so every few seconds, even while it does not grow.
ABANDONED_SECONDS = 30.0
T = TypeVar("T")


class Transactions(Protocol):
    """Runs work in transactions, off the event loop. Raises `StoreUnavailable`."""

    async def read(self, work: Callable[[Connection], T]) -> T: ...

    async def write(self, work: Callable[[Connection], T]) -> T: ...

    async def erase(self, work: Callable[[Connection], T]) -> T:
        """As `write`, and no trace of what `work` deleted stays."""
        ...

    async def aclose(self) -> None: ...


class SqlConversations:
    """A `ConversationStore`. An answer that nobody has written to for `ABANDONED_SECONDS` was cut
    by a crash, and counts as such."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def history(
        self, principal_id: str, conversation_id: str, max_exchanges: int
    ) -> History | None:
        """The last ended exchanges; None when the principal has no such conversation."""
        return await self._database.read(
            lambda connection: self._history(
                connection, principal_id, conversation_id, max_exchanges
            )
        )

    async def add_turn(self, principal_id: str, conversation_id: str, text: str) -> int:
        """Keep what was said, with an empty answer that is being written; makes the conversation
        if need be. Returns the answer's key."""
        return await self._database.write(
            lambda connection: self._add_turn(connection, principal_id, conversation_id, text)
        )

    async def write_answer(self, key: int, answer: Message, state: AnswerState) -> bool:
        """Replace an answer; whether it is wanted on. One that was deleted meanwhile stays
        deleted, and is wanted no more, as is one that somebody else has stopped."""
        row = {
            "content": answer.content,
            "reasoning": answer.reasoning,
            "state": state.value,
            "updated_at": self._clock(),
        }
        replaced = update(messages).where(messages.c.key == key).values(row)
        wanted = select(messages.c.stop_wanted == 0).where(messages.c.key == key)

        def work(connection: Connection) -> bool:
            connection.execute(replaced)
            return bool(connection.scalar(wanted))

        return await self._database.write(work)

    async def last_exchange(self, principal_id: str, conversation_id: str) -> LastExchange | None:
        """What was said last, and what was answered; None where there is nothing."""
        query = (
            select(messages)
            .join(conversations, conversations.c.key == messages.c.conversation_key)
            .where(named(principal_id, conversation_id))
            .order_by(messages.c.turn.desc(), messages.c.key)
            .limit(2)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        if {row.role for row in rows} != {Role.USER.value, Role.ASSISTANT.value}:
            return None
        return LastExchange(rows[-1].key, to_exchange(rows))

    async def reopen(self, key: int) -> bool:
        """Have an ended answer be written on; False where it is being written, or gone."""
        ended = or_(
            messages.c.state != AnswerState.WRITING.value,
            messages.c.updated_at < self._clock() - ABANDONED_SECONDS,
        )
        row = {
            "state": AnswerState.WRITING.value,
            "stop_wanted": 0,
            "updated_at": self._clock(),
        }
        reopened = update(messages).where(messages.c.key == key, ended).values(row)
        return await self._database.write(lambda c: c.execute(reopened).rowcount > 0)

    async def settle_abandoned(self, seconds: float = ABANDONED_SECONDS) -> int:
        """Have answers that nobody writes any more count as cut, also for the search; how many."""
        before = self._clock() - seconds
        abandoned = and_(
            messages.c.state == AnswerState.WRITING.value, messages.c.updated_at <= before
        )
        settled = update(messages).where(abandoned).values(state=AnswerState.CUT.value)
        return await self._database.write(lambda c: c.execute(settled).rowcount)

    async def delete(self, principal_id: str, conversation_id: str) -> bool:
        """Forget a conversation with all its messages; whether there was one."""
        deleted = await self._database.erase(
            lambda connection: (
                connection.execute(
                    delete(conversations).where(named(principal_id, conversation_id))
                ).rowcount
            )
        )
        return deleted > 0

    async def list_ids(self, principal_id: str) -> list[str]:
        """The principal's conversations, the last used first."""
        newest_first = (
            select(conversations.c.id)
            .where(conversations.c.principal_id == principal_id)
            .order_by(conversations.c.updated_at.desc(), conversations.c.key.desc())
        )
        return await self._database.read(
            lambda connection: list(connection.execute(newest_first).scalars())
        )

    async def aclose(self) -> None:
        await self._database.aclose()

    def _history(
        self, connection: Connection, principal_id: str, conversation_id: str, max_exchanges: int
    ) -> History | None:
        key = connection.scalar(
            select(conversations.c.key).where(named(principal_id, conversation_id))
        )
        if key is None:
            return None
        ended = and_(
            messages.c.conversation_key == key,
            messages.c.role == Role.ASSISTANT.value,
            messages.c.content != "",
            or_(
                messages.c.state != AnswerState.WRITING.value,
                messages.c.updated_at < self._clock() - ABANDONED_SECONDS,
            ),
        )
        num_exchanges = connection.scalar(select(func.count()).where(ended)) or 0
        last_turns = (
            select(messages.c.turn)
            .where(ended)
            .order_by(messages.c.turn.desc())
            .limit(max_exchanges)
        )
        rows = connection.execute(
            select(messages)
            .where(messages.c.conversation_key == key, messages.c.turn.in_(last_turns))
            .order_by(messages.c.turn, messages.c.key)
        ).all()
        turns = [list(turn) for _, turn in groupby(rows, key=lambda row: row.turn)]
        return History(tuple(to_exchange(turn) for turn in turns), num_exchanges)

    def _add_turn(
        self, connection: Connection, principal_id: str, conversation_id: str, text: str
    ) -> int:
        now = self._clock()
        connection.execute(
            upsert(conversations)
            .values(
                principal_id=principal_id,
                id=conversation_id,
                created_at=now,
                updated_at=now,
                title=to_title(text),
            )
            .on_conflict_do_update(["principal_id", "id"], set_=_touched(now, to_title(text)))
        )
        key = connection.scalar(
            select(conversations.c.key).where(named(principal_id, conversation_id))
        )
        last = connection.scalar(
            select(func.max(messages.c.turn)).where(messages.c.conversation_key == key)
        )
        row: dict[str, Any] = {
            "conversation_key": key,
            "turn": 1 if last is None else last + 1,
            "reasoning": "",
            "created_at": now,
            "updated_at": now,
        }
        said = {"role": Role.USER.value, "content": text, "state": AnswerState.COMPLETE.value}
        answer = {"role": Role.ASSISTANT.value, "content": "", "state": AnswerState.WRITING.value}
        connection.execute(insert(messages).values(row | said))
        inserted = connection.execute(insert(messages).values(row | answer)).inserted_primary_key
        if inserted is None:
            raise RuntimeError("the database gave no key for a row that it inserted")
        return int(inserted[0])


def to_exchange(rows: Sequence[Row[Any]]) -> Exchange:
    """The rows of one turn, as one exchange."""
    by_role = {row.role: row for row in rows}
    said, answer = by_role[Role.USER.value], by_role[Role.ASSISTANT.value]
    state = AnswerState(answer.state)
    return Exchange(
        Message(Role.USER, said.content),
        Message(Role.ASSISTANT, answer.content, reasoning=answer.reasoning),
        AnswerState.CUT if state is AnswerState.WRITING else state,
    )


def _touched(now: float, title: str) -> dict[str, Any]:
    """Used now; a conversation that was made before anything was said gets its title now."""
    return {
        "updated_at": now,
        "title": case((conversations.c.title == "", title), else_=conversations.c.title),
    }


def named(principal_id: str, conversation_id: str) -> Any:
    """The condition that a conversation is the one which this principal calls so."""
    return and_(conversations.c.principal_id == principal_id, conversations.c.id == conversation_id)
