"""Kept responses as rows."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from service.domain.conversation import KeptResponse, KeptTurn, ResponseState
from service.store.conversations import Transactions, named
from service.store.items import append_turns, let_go
from service.store.tables import response_events
from service.store.tables import responses as rows

LOST_SECONDS = 15.0


class SqlResponses:
    """A `ResponseStore`. A response that nobody has written to for `LOST_SECONDS` is lost, and
    stays so. All methods raise `StoreUnavailable`."""

    def __init__(self, database: Transactions, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def keep(
        self,
        principal_id: str,
        response: KeptResponse,
        events: Sequence[str] = (),
        turn: KeptTurn | None = None,
    ) -> None:
        """A new response, what was told of it so far, and what its conversation gets of it."""
        now = self._clock()
        row = {
            "principal_id": principal_id,
            "id": response.id,
            "previous_id": response.previous_id,
            "created_at": now,
            "updated_at": now,
            "input": response.input,
            "reply": response.reply,
            "state": response.state.value,
        }

        def work(connection: Connection) -> None:
            made = connection.execute(insert(rows).values(row)).inserted_primary_key
            _add_events(connection, made[0] if made else None, 0, events)
            _add_turn(connection, principal_id, turn, now)

        await self._database.write(work)

    async def grow(
        self,
        principal_id: str,
        response: KeptResponse,
        number: int,
        events: Sequence[str],
        turn: KeptTurn | None = None,
    ) -> bool:
        """Replace a response that is being written, and add events from `number` on. False where
        it is wanted no more: it was cancelled, forgotten or given up for lost. At its end, its
        conversation gets `turn`, and waits no more."""
        now = self._clock()
        writing = and_(
            _named(principal_id, response.id),
            rows.c.state == ResponseState.WRITING.value,
            rows.c.updated_at >= now - LOST_SECONDS,
        )
        grown = {"reply": response.reply, "state": response.state.value, "updated_at": now}

        def work(connection: Connection) -> bool:
            key = connection.scalar(select(rows.c.key).where(writing))
            if key is None:
                return False
            connection.execute(update(rows).where(rows.c.key == key).values(grown))
            _add_events(connection, key, number, events)
            if response.state is not ResponseState.WRITING:
                _add_turn(connection, principal_id, turn, now)
                let_go(connection, principal_id, response.id)
            return True

        return await self._database.write(work)

    async def cancel(self, principal_id: str, response_id: str) -> None:
        """Want it no more, if it is still being written; nor does its conversation wait for it."""
        writing = and_(
            _named(principal_id, response_id),
            rows.c.state == ResponseState.WRITING.value,
            rows.c.updated_at >= self._clock() - LOST_SECONDS,
        )
        cancelled = update(rows).where(writing).values(state=ResponseState.CANCELLED.value)

        def work(connection: Connection) -> None:
            connection.execute(cancelled)
            let_go(connection, principal_id, response_id)

        await self._database.write(work)

    async def chain(self, principal_id: str, response_id: str, most: int) -> list[KeptResponse]:
        """The response and those it goes on from, the oldest first; none where it is unknown."""
        lost = self._clock() - LOST_SECONDS

        def work(connection: Connection) -> list[KeptResponse]:
            found: list[KeptResponse] = []
            wanted: str | None = response_id
            while wanted is not None and len(found) < most:
                query = select(rows).where(_named(principal_id, wanted))
                row = connection.execute(query).first()
                if row is None:
                    break
                found.append(_to_response(row, lost))
                wanted = row.previous_id
            return found[::-1]

        return await self._database.read(work)

    async def holding(self, principal_id: str, item_id: str) -> KeptResponse | None:
        """The latest response whose input or output has an item with this id."""
        lost = self._clock() - LOST_SECONDS
        spelled = f'"id": {json.dumps(item_id)}'

        def work(connection: Connection) -> KeptResponse | None:
            named = or_(
                rows.c.reply.contains(spelled, autoescape=True),
                rows.c.input.contains(spelled, autoescape=True),
            )
            query = select(rows).where(rows.c.principal_id == principal_id, named)
            row = connection.execute(query.order_by(rows.c.created_at.desc()).limit(1)).first()
            return None if row is None else _to_response(row, lost)

        return await self._database.read(work)

    async def growth(
        self, principal_id: str, response_id: str, number: int
    ) -> tuple[KeptResponse, list[str]] | None:
        """The response as it is now, and its events from `number` on; None where there is none."""
        lost = self._clock() - LOST_SECONDS

        def work(connection: Connection) -> tuple[KeptResponse, list[str]] | None:
            row = connection.execute(select(rows).where(_named(principal_id, response_id))).first()
            if row is None:
                return None
            return _to_response(row, lost), _events(connection, row.key, number)

        return await self._database.read(work)

    async def forget(self, principal_id: str, response_id: str) -> bool:
        """Whether there was one."""
        gone = delete(rows).where(_named(principal_id, response_id))

        def work(connection: Connection) -> bool:
            let_go(connection, principal_id, response_id)
            return connection.execute(gone).rowcount > 0

        return await self._database.erase(work)


def _named(principal_id: str, response_id: str) -> Any:
    return and_(rows.c.principal_id == principal_id, rows.c.id == response_id)


def _to_response(row: Row[Any], lost: float) -> KeptResponse:
    state = ResponseState(row.state)
    if state is ResponseState.WRITING and row.updated_at < lost:
        state = ResponseState.LOST
    return KeptResponse(row.id, row.previous_id, row.input, row.reply, state)


def _add_turn(connection: Connection, principal_id: str, turn: KeptTurn | None, now: float) -> None:
    """Nothing, where the conversation was forgotten meanwhile, as somebody wanted."""
    if turn is not None:
        append_turns(connection, named(principal_id, turn.conversation_id), turn.turns, now)


def _add_events(
    connection: Connection, response_key: int | None, number: int, events: Sequence[str]
) -> None:
    if events:
        packed = zlib.compress(json.dumps(events).encode())
        row = {"response_key": response_key, "first_number": number, "events": packed}
        connection.execute(insert(response_events).values(row))


def _events(connection: Connection, response_key: int, number: int) -> list[str]:
    """From `number` on. The batch that it lies in begins with the last number before it."""
    batches = connection.execute(
        select(response_events)
        .where(response_events.c.response_key == response_key)
        .order_by(response_events.c.first_number)
    ).all()
    found: list[str] = []
    for index, batch in enumerate(batches):
        if index + 1 < len(batches) and batches[index + 1].first_number <= number:
            continue
        events: list[str] = json.loads(zlib.decompress(batch.events))
        found += events[max(0, number - batch.first_number) :]
    return found
