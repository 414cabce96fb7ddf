"""Bring a database file to this version's tables, forward only."""

from __future__ import annotations

import sqlite3
import time
from importlib import resources

from sqlalchemy import Connection, Engine

from service.domain.errors import ConfigurationError

_RECORD = """
CREATE TABLE IF NOT EXISTS migrations (name TEXT NOT NULL PRIMARY KEY, applied_at FLOAT NOT NULL)
"""


def migration_names() -> list[str]:
    """All migrations of this version, in order."""
    folder = resources.files("service.store") / "migrations"
    return sorted(f.name.removesuffix(".sql") for f in folder.iterdir() if f.name.endswith(".sql"))


def migrate(writing: Engine) -> None:
    """Apply what is missing, all in one transaction that keeps other workers waiting.

    Raises `ConfigurationError` for a file that a newer version has written.
    """
    known = migration_names()
    with writing.begin() as connection:
        connection.exec_driver_sql(_RECORD)
        applied = set(connection.exec_driver_sql("SELECT name FROM migrations").scalars())
        unknown = sorted(applied - set(known))
        if unknown:
            raise ConfigurationError(
                f"{writing.url.database} was written by a newer version (it has {unknown[-1]}, "
                f"this version knows up to {known[-1]}); upgrade, or name another file in "
                "PARLEY_STORE__URL."
            )
        for name in known:
            if name not in applied:
                _apply(connection, name)


def _apply(connection: Connection, name: str) -> None:
    folder = resources.files("service.store") / "migrations"
    for statement in statements((folder / f"{name}.sql").read_text(encoding="utf-8")):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO migrations VALUES (?, ?)", (name, time.time()))


def statements(script: str) -> list[str]:
    """A script's statements; one may span lines and hold semicolons in strings or triggers."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    if pending.strip():
        raise ValueError(f"the last statement has no end: {pending.strip()[:60]!r}")
    return found
