"""Access tokens as rows."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, insert, select, update

from service.domain.access import AccessToken, Act, Limits, Scope
from service.settings import Settings
from service.store.conversations import Transactions
from service.store.database import Database, store_url
from service.store.tables import access_tokens as rows
from service.store.tables import audit


class SqlAccessTokens:
    """A `TokenStore`. Rows are never deleted."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def any_exist(self) -> bool:
        return await self._database.read(_any_exist)

    async def with_digest(self, digest: str) -> AccessToken | None:
        row = await self._database.read(
            lambda connection: connection.execute(
                select(rows).where(rows.c.digest == digest)
            ).one_or_none()
        )
        return None if row is None else to_access_token(row)

    async def list_all(self) -> list[AccessToken]:
        found = await self._database.read(
            lambda connection: connection.execute(select(rows).order_by(rows.c.issued_at)).all()
        )
        return [to_access_token(row) for row in found]

    async def add(self, token: AccessToken) -> bool:
        """Keep a new one; False where an unrevoked one has its name."""
        return await self._database.write(lambda connection: _add(connection, token))

    async def replace_secret(self, token: AccessToken) -> bool:
        """Change digest, prefix and times of the unrevoked one with this id; False without one."""
        row = {
            name: value
            for name, value in _to_row(token).items()
            if name in {"digest", "prefix", "issued_at", "expires_at", "last_used_at"}
        }
        return await self._change(token.id, row)

    async def revoke(self, token_id: str, now: float) -> bool:
        """False where it has been revoked already."""
        return await self._change(token_id, {"revoked_at": now})

    async def note_use(self, token_id: str, now: float) -> None:
        await self._change(token_id, {"last_used_at": now})

    async def note_act(self, at: float, actor: str, act: str, about: str) -> None:
        row = {"at": at, "actor": actor, "act": act, "about": about}
        await self._database.write(lambda connection: connection.execute(insert(audit).values(row)))

    async def acts(self, most: int) -> list[Act]:
        """The latest acts, the newest first."""
        latest = select(audit).order_by(audit.c.key.desc()).limit(most)
        found = await self._database.read(lambda connection: connection.execute(latest).all())
        return [Act(row.at, row.actor, row.act, row.about) for row in found]

    async def _change(self, token_id: str, row: dict[str, Any]) -> bool:
        usable = and_(rows.c.id == token_id, rows.c.revoked_at.is_(None))
        changed = await self._database.write(
            lambda connection: connection.execute(update(rows).where(usable).values(row)).rowcount
        )
        return changed > 0


def any_access_token(settings: Settings) -> bool:
    """Whether the store that the settings name has ever kept one. Blocks."""
    database = Database(store_url(settings))
    try:
        with database.engine.connect() as connection:
            return _any_exist(connection)
    finally:
        database.engine.dispose()


def _any_exist(connection: Connection) -> bool:
    return connection.scalar(select(rows.c.id).limit(1)) is not None


def _add(connection: Connection, token: AccessToken) -> bool:
    namesake = select(rows.c.id).where(rows.c.name == token.name, rows.c.revoked_at.is_(None))
    if connection.scalar(namesake) is not None:
        return False
    connection.execute(insert(rows).values(_to_row(token)))
    return True


def _to_row(token: AccessToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "digest": token.digest,
        "scopes": " ".join(sorted(scope.value for scope in token.scopes)),
        "issued_at": token.issued_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
        "requests_per_minute": token.requests_per_minute,
        "limits": msgspec.json.encode(token.limits).decode(),
    }


def to_access_token(row: Row[Any]) -> AccessToken:
    fields = dict(row._mapping)
    scopes = frozenset(Scope(word) for word in fields.pop("scopes").split())
    limits = msgspec.json.decode(fields.pop("limits"), type=Limits)
    return AccessToken(**fields, scopes=scopes, limits=limits)
