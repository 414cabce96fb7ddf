"""Files of earlier versions, with what was said in them."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

import pytest

from service.settings import Settings, StoreSettings
from service.store.archive import SqlArchive
from service.store.database import open_database
from service.store.migrate import migration_names, statements

SAID = [("user", "Bread, please."), ("assistant", "Flour and water.")]


def write_as_version(path: Path, num_migrations: int) -> None:
    """A file as the version with so many migrations left it, with one exchange in it."""
    folder = resources.files("service.store") / "migrations"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_at FLOAT)")
        for name in migration_names()[:num_migrations]:
            for statement in statements((folder / f"{name}.sql").read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, 0)", (name,))
        connection.execute(
            "INSERT INTO conversations (key, principal_id, id, created_at, updated_at) "
            "VALUES (1, 'me', 'chat', 1.0, 2.0)"
        )
        for role, content in SAID:
            connection.execute(
                "INSERT INTO messages (conversation_key, turn, role, content, reasoning, state, "
                "created_at, updated_at) VALUES (1, 1, ?, ?, '', 'complete', 1.0, 1.0)",
                (role, content),
            )
    connection.close()


@pytest.mark.parametrize("num_migrations", range(1, len(migration_names()) + 1))
async def test_what_an_earlier_version_kept_is_there_titled_and_found(
    tmp_path: Path, num_migrations: int
) -> None:
    path = tmp_path / "parley.sqlite"
    write_as_version(path, num_migrations)
    settings = Settings(store=StoreSettings(url=f"sqlite:///{path}"))
    database = await open_database(settings)
    archive = SqlArchive(database)
    kept = await archive.messages("me", "chat", 10)
    assert [(m.message.role.value, m.message.content) for m in kept] == SAID
    summary = await archive.summary("me", "chat")
    assert summary is not None
    assert summary.title == ("Bread, please." if num_migrations < 4 else "")
    (hit,) = await archive.search("me", ["flour"], 5)
    assert hit.snippet == "Flour and water."
    await database.aclose()
