"""What answers take, as rows: set aside while they run, counted by the day when they end."""

from __future__ import annotations

import math
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import select

from service.domain.access import Grant, Limits, Need, Spent, Standing
from service.domain.events import Usage
from service.store.direct import Counters
from service.store.tables import usage

WINDOW_SECONDS = 60.0
LEASE_SECONDS = 60.0

_END_ABANDONED = """
UPDATE answers SET ended_at = min(leased_until, :now)
WHERE ended_at IS NULL AND leased_until < :horizon {whose}
RETURNING principal_id, ended_at, model, prompt_tokens, 0, tokens - prompt_tokens
"""
_END_ALL_ABANDONED = _END_ABANDONED.format(whose="")
_END_MY_ABANDONED = _END_ABANDONED.format(whose="AND principal_id = :me")
# What lies far ahead was kept before somebody set the clock back. A statement each, so that each
# finds its rows by the index.
_FORGET = tuple(
    f"DELETE FROM answers WHERE principal_id = :me AND {passed}"  # noqa: S608  # our own words
    for passed in (
        "ended_at <= :now - :window",
        "ended_at > :now + :window",
        "ended_at IS NULL AND began_at > :now + :window",
    )
)
_HELD = """
SELECT coalesce(sum(tokens), 0), coalesce(sum(CASE WHEN ended_at IS NULL THEN tokens END), 0),
       count(*) - count(ended_at), min(ended_at)
FROM answers WHERE principal_id = ?
"""
_RESERVE = """
INSERT INTO answers (key, principal_id, tokens, began_at, leased_until, model, prompt_tokens)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_USED = """
SELECT coalesce(sum(CASE WHEN day >= ? THEN prompt_tokens + completion_tokens END), 0),
       coalesce(sum(prompt_tokens + completion_tokens), 0)
FROM usage WHERE principal_id = ? AND day >= ?
"""
_END = "UPDATE answers SET ended_at = ?, tokens = ? WHERE key = ? AND ended_at IS NULL"
_ENDED = """
SELECT tokens, ended_at FROM answers WHERE principal_id = ? AND ended_at IS NOT NULL
ORDER BY ended_at
"""
_RENEW = "UPDATE answers SET leased_until = ? WHERE key = ? AND ended_at IS NULL"
_UNDO = "DELETE FROM answers WHERE key = ? AND ended_at IS NULL"
_COUNT = """
INSERT INTO usage
    (principal_id, day, model, answers, prompt_tokens, cached_tokens, completion_tokens)
VALUES (?, ?, ?, 1, ?, ?, ?)
ON CONFLICT (principal_id, day, model) DO UPDATE SET
    answers = answers + 1,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens
"""


class SqlSpending(Counters):
    """A `SpendingStore`. An answer whose worker is gone is found when its lease has passed, by
    whoever asks next for the same principal or for what was spent, and counted then, once, as what
    was set aside for it: nobody knows better, and no limit may be exceeded."""

    async def reserve(self, principal_id: str, limits: Limits, need: Need) -> Grant:
        """Set aside as many tokens as the limits leave, `need.most` at most and `need.least` at
        least."""

        def work(connection: sqlite3.Connection) -> Grant:
            now = self._clock()
            self._forget(connection, principal_id, now)
            standings = _standings(connection, principal_id, limits, now)
            left = {name: standing.left for name, standing in standings.items()}
            tokens = min([need.most, *(n for name, n in left.items() if name != "streams")])
            if tokens < need.least or left.get("streams", 1) < 1:
                seconds = _seconds(connection, principal_id, left, need.least, now)
                return Grant(None, tokens, standings, seconds)
            # Never used again, also not for another's answer while a late worker still knows it.
            key = secrets.randbits(62)
            lease = (now, now + LEASE_SECONDS)
            row = (key, principal_id, tokens, *lease, need.model, need.prompt_tokens)
            connection.execute(_RESERVE, row)
            return Grant(key, tokens, standings)

        return await self._database.write_directly(work)

    async def settle(
        self, principal_id: str, key: int | None, model: str, taken: Usage, *, began: bool = True
    ) -> None:
        """Count what an answer took instead of what was set aside for it under `key`. One that
        never `began` took nothing; one that was given up for lost has been counted."""

        def work(connection: sqlite3.Connection) -> None:
            now = self._clock()
            if not began:
                connection.execute(_UNDO, (key,))
                return
            if key is not None:
                ended = connection.execute(_END, (now, taken.total_tokens, key))
                if ended.rowcount == 0:
                    return
            counted = (taken.prompt_tokens, taken.cached_tokens, taken.completion_tokens)
            connection.execute(_COUNT, (principal_id, _day(now), model, *counted))

        await self._database.write_directly(work)

    async def renew(self, keys: Sequence[int]) -> None:
        """These are still running."""
        until = self._clock() + LEASE_SECONDS
        renewed = [(until, key) for key in keys]
        await self._database.write_directly(
            lambda connection: connection.executemany(_RENEW, renewed).rowcount
        )

    async def spent(self, principal_id: str | None, since_day: str) -> list[Spent]:
        """By day and model, the newest first; everybody's where `principal_id` is None."""

        def count_abandoned(connection: sqlite3.Connection) -> None:
            now = self._clock()
            _count_abandoned(connection, _END_ALL_ABANDONED, {"now": now, "horizon": now})

        await self._database.write_directly(count_abandoned)
        query = select(usage).where(usage.c.day >= since_day)
        if principal_id is not None:
            query = query.where(usage.c.principal_id == principal_id)
        query = query.order_by(usage.c.day.desc(), usage.c.principal_id, usage.c.model)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [Spent(**row._mapping) for row in found]

    def _forget(self, connection: sqlite3.Connection, principal_id: str, now: float) -> None:
        """Drop what counts no more. A running answer whose worker is gone ended with its lease."""
        mine = {"now": now, "horizon": now, "me": principal_id}
        _count_abandoned(connection, _END_MY_ABANDONED, mine)
        for forget in _FORGET:
            connection.execute(forget, {"me": principal_id, "now": now, "window": WINDOW_SECONDS})


def count_all_abandoned(connection: sqlite3.Connection, now: float) -> None:
    """For the start of the service: there is no worker yet, so nothing runs, whatever its lease."""
    _count_abandoned(connection, _END_ALL_ABANDONED, {"now": now, "horizon": math.inf})


def _count_abandoned(connection: sqlite3.Connection, ending: str, of: Mapping[str, object]) -> None:
    for principal_id, ended_at, *counted in connection.execute(ending, of).fetchall():
        connection.execute(_COUNT, (principal_id, _day(ended_at), *counted))


def _standings(
    connection: sqlite3.Connection, principal_id: str, limits: Limits, now: float
) -> dict[str, Standing]:
    """Of each limit that there is. Nobody knows when an answer that runs ends: its tokens are back
    a minute later, at the soonest."""
    window, reserved, streams, oldest = connection.execute(_HELD, (principal_id,)).fetchone()
    found = {}
    if (limit := limits.tokens_per_minute) is not None:
        more_in = WINDOW_SECONDS if oldest is None else max(0.0, oldest + WINDOW_SECONDS - now)
        found["tokens_per_minute"] = Standing(limit, limit - window, more_in)
    if (limit := limits.streams) is not None:
        found["streams"] = Standing(limit, limit - streams, 0.0)
    if limits.tokens_per_day is None and limits.tokens_per_month is None:
        return found
    today = _day(now)
    used = connection.execute(_USED, (today, principal_id, today[:7])).fetchone()
    if (limit := limits.tokens_per_day) is not None:
        found["tokens_per_day"] = Standing(limit, limit - reserved - used[0], _until_day(now))
    if (limit := limits.tokens_per_month) is not None:
        found["tokens_per_month"] = Standing(limit, limit - reserved - used[1], _until_month(now))
    return found


def _seconds(
    connection: sqlite3.Connection, principal_id: str, left: dict[str, int], least: int, now: float
) -> float:
    """When trying again can help: when enough of the last minute has passed, or a day or month."""
    waits = [1.0]
    if left.get("tokens_per_day", least) < least:
        waits.append(_until_day(now))
    if left.get("tokens_per_month", least) < least:
        waits.append(_until_month(now))
    missing = least - left.get("tokens_per_minute", least)
    if missing > 0:
        ended = connection.execute(_ENDED, (principal_id,)).fetchall()
        waits.append(_until_free(ended, missing, now))
    return max(waits)


def _until_day(now: float) -> float:
    return 86400.0 - (now % 86400.0)


def _until_month(now: float) -> float:
    moment = datetime.fromtimestamp(now, UTC)
    following = (moment.year + moment.month // 12, moment.month % 12 + 1)
    return datetime(*following, 1, tzinfo=UTC).timestamp() - now


def _until_free(ended: Sequence[tuple[int, float]], missing: int, now: float) -> float:
    for tokens, at in ended:
        missing -= tokens
        if missing <= 0:
            return at + WINDOW_SECONDS - now
    return WINDOW_SECONDS


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
