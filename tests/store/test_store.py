"""The store, on real files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, inspect

from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState, History
from service.domain.errors import ConfigurationError, StoreUnavailable
from service.settings import Settings, StoreSettings
from service.store.conversations import ABANDONED_SECONDS, SqlConversations
from service.store.database import Database, check_store, open_store, store_url
from service.store.migrate import migration_names, statements
from service.store.tables import metadata
from tests.fakes.clock import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "parley.sqlite"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = Database(store_url(settings_for(path)))
    opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
def store(database: Database, clock: FakeClock) -> SqlConversations:
    return SqlConversations(database, clock)


def settings_for(path: Path) -> Settings:
    return Settings(store=StoreSettings(url=f"sqlite:///{path}"))


def answer(text: str, reasoning: str = "") -> Message:
    return Message(Role.ASSISTANT, text, reasoning=reasoning)


async def told(store: SqlConversations, limit: int = 100) -> list[tuple[str, str]]:
    history = await store.history("me", "chat", limit)
    return [(e.user.content, e.answer.content) for e in history.exchanges] if history else []


async def add(store: SqlConversations, text: str, reply: str) -> int:
    key = await store.add_turn("me", "chat", text)
    await store.write_answer(key, answer(reply), AnswerState.COMPLETE)
    return key


def schema_of(url: str, *, ignoring: set[str]) -> Mapping[str, object]:
    """Everything sqlite says of the tables, but how it was spelled."""
    engine = create_engine(url)
    found = inspect(engine)
    schema = {
        name: (
            [{**c, "type": str(c["type"])} for c in found.get_columns(name)],
            found.get_pk_constraint(name)["constrained_columns"],
            [
                (k["constrained_columns"], k["referred_table"], k["options"])
                for k in found.get_foreign_keys(name)
            ],
            sorted(tuple(u["column_names"]) for u in found.get_unique_constraints(name)),
            sorted((str(i["name"]), tuple(i["column_names"])) for i in found.get_indexes(name)),
        )
        for name in found.get_table_names()
        if name not in ignoring and not name.startswith("messages_text")
    }
    engine.dispose()
    return schema


async def test_a_fresh_schema_equals_the_migrated_one(database: Database, tmp_path: Path) -> None:
    fresh = f"sqlite:///{tmp_path / 'fresh.sqlite'}"
    engine = create_engine(fresh)
    metadata.create_all(engine)
    engine.dispose()
    migrated = schema_of(str(database.url), ignoring={"migrations"})
    assert migrated == schema_of(fresh, ignoring=set())
    assert "messages" in migrated


async def test_exchanges_come_back_in_the_order_they_were_kept(store: SqlConversations) -> None:
    for number in range(5):
        await add(store, f"q{number}", f"a{number}")
    assert await told(store) == [(f"q{n}", f"a{n}") for n in range(5)]
    assert await told(store, limit=2) == [("q3", "a3"), ("q4", "a4")]
    history = await store.history("me", "chat", 2)
    assert history is not None
    assert history.num_exchanges == 5


async def test_a_limit_of_none_at_all_still_counts(store: SqlConversations) -> None:
    await add(store, "q", "a")
    assert await store.history("me", "chat", 0) == History((), 1)


async def test_an_unknown_conversation_has_no_history(store: SqlConversations) -> None:
    await add(store, "q", "a")
    assert await store.history("me", "other", 10) is None
    assert await store.history("you", "chat", 10) is None


async def test_an_answer_that_is_being_written_is_not_history_yet(store: SqlConversations) -> None:
    await add(store, "q1", "a1")
    key = await store.add_turn("me", "chat", "q2")
    await store.write_answer(key, answer("half"), AnswerState.WRITING)
    assert await told(store) == [("q1", "a1")]
    await store.write_answer(key, answer("half of it"), AnswerState.CUT)
    assert await told(store) == [("q1", "a1"), ("q2", "half of it")]


async def test_what_a_crash_left_half_written_counts_as_cut_after_a_while(
    store: SqlConversations, clock: FakeClock
) -> None:
    key = await store.add_turn("me", "chat", "q")
    await store.write_answer(key, answer("half"), AnswerState.WRITING)
    clock.now += ABANDONED_SECONDS + 1
    history = await store.history("me", "chat", 10)
    assert history is not None
    assert [(e.answer.content, e.state) for e in history.exchanges] == [("half", AnswerState.CUT)]


async def test_an_answer_without_a_word_is_no_history(store: SqlConversations) -> None:
    key = await store.add_turn("me", "chat", "q")
    await store.write_answer(key, answer(""), AnswerState.CUT)
    assert await told(store) == []


async def test_turns_that_begin_at_once_keep_their_order_and_their_answers(
    store: SqlConversations,
) -> None:
    keys = await asyncio.gather(*(store.add_turn("me", "chat", f"q{n}") for n in range(8)))
    await asyncio.gather(
        *(
            store.write_answer(key, answer(f"a{n}"), AnswerState.COMPLETE)
            for n, key in reversed(list(enumerate(keys)))
        )
    )
    kept = await told(store)
    assert sorted(kept) == [(f"q{n}", f"a{n}") for n in range(8)]
    assert [q for q, _ in kept] == [f"q{keys.index(key)}" for key in sorted(keys)]


async def test_deleting_forgets_all_messages_and_late_words(
    store: SqlConversations, path: Path
) -> None:
    key = await add(store, "q", "a")
    assert await store.delete("you", "chat") is False
    assert await store.delete("me", "chat") is True
    assert await store.delete("me", "chat") is False
    await store.write_answer(key, answer("late"), AnswerState.COMPLETE)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    connection.close()


async def test_conversations_are_listed_by_their_last_use(
    store: SqlConversations, clock: FakeClock
) -> None:
    for name in ("a", "b", "c", "a"):
        clock.now += 1
        await store.add_turn("me", name, "q")
    await store.add_turn("you", "d", "q")
    assert await store.list_ids("me") == ["a", "c", "b"]


async def test_odd_text_comes_back_as_it_was(store: SqlConversations) -> None:
    odd = "null\0byte \U0001f600 'quote\" %s ? :x \r\n\t\U000f0000"
    await add(store, odd, odd)
    assert await told(store) == [(odd, odd)]


async def test_the_file_survives_being_opened_again(path: Path) -> None:
    first = await open_store(settings_for(path))
    await add(first, "q", "a")
    await first.aclose()
    second = await open_store(settings_for(path))
    assert await told(second) == [("q", "a")]
    await second.aclose()


_OPEN_AND_ADD = """
import asyncio, sys
from service.settings import Settings, StoreSettings
from service.store.database import open_store

async def main():
    store = await open_store(Settings(store=StoreSettings(url="sqlite:///" + sys.argv[1])))
    for n in range(20):
        await store.add_turn("me", "chat", sys.argv[2] + str(n))
    await store.aclose()

asyncio.run(main())
"""


async def test_workers_that_start_at_once_on_a_new_file_all_get_to_write(path: Path) -> None:
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _OPEN_AND_ADD, path, name)
        for name in "abcd"
    ]
    assert [await worker.wait() for worker in workers] == [0, 0, 0, 0]
    with sqlite3.connect(path) as connection:
        turns = connection.execute("SELECT turn FROM messages WHERE role = 'user'").fetchall()
        assert sorted(turn for (turn,) in turns) == list(range(1, 81))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


_WRITE_FOREVER = """
import asyncio, sys
from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState
from service.settings import Settings, StoreSettings
from service.store.database import open_store

async def main():
    store = await open_store(Settings(store=StoreSettings(url="sqlite:///" + sys.argv[1])))
    for n in range(10**6):
        key = await store.add_turn("me", "chat", f"q{n}")
        await store.write_answer(key, Message(Role.ASSISTANT, f"a{n}"), AnswerState.COMPLETE)
        print(n, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    for _ in range(3):
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITE_FOREVER, path, stdout=asyncio.subprocess.PIPE
        )
        assert worker.stdout is not None
        last = [await worker.stdout.readline() for _ in range(20)][-1]
        worker.kill()
        rest = (await worker.stdout.read()).split()
        await worker.wait()
        acknowledged = int(rest[-1] if rest else last)
        store = await open_store(settings_for(path))
        kept = await told(store, limit=10**6)
        assert set(kept) >= {(f"q{n}", f"a{n}") for n in range(acknowledged + 1)}
        assert await store.delete("me", "chat")
        await store.aclose()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_a_write_that_has_begun_is_finished_when_its_caller_gives_up(
    store: SqlConversations, path: Path
) -> None:
    writing = asyncio.create_task(store.add_turn("me", "chat", "q"))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.aclose()  # waits for what has begun
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM conversations").fetchall() == [("chat",)]
    connection.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    await (await open_store(settings_for(path))).aclose()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO migrations VALUES ('0999_wonders', 0)")
    connection.close()
    newest = migration_names()[-1]
    with pytest.raises(
        ConfigurationError,
        match=rf"parley\.sqlite was written by a newer version \(it has 0999_wonders, this version "
        rf"knows up to {newest}\); upgrade",
    ):
        await open_store(settings_for(path))


def damage_header(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:2000] = os.urandom(1900)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_header, damage_middle])
def test_a_broken_file_is_refused_in_one_sentence(
    path: Path, damage: Callable[[Path], None]
) -> None:
    database = Database(store_url(settings_for(path)))
    database.open()
    asyncio.run(database.aclose())
    damage(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"^The database .*parley\.sqlite can't be used: "):
        asyncio.run(open_store(settings_for(path)))
    with pytest.raises(ConfigurationError, match="Restore it from a backup or move it away"):
        check_store(settings_for(path))
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"folder of the database .* can't be made"):
        await open_store(settings_for(tmp_path / "file" / "parley.sqlite"))


async def test_a_full_disk_is_one_sentence_and_loses_nothing(
    store: SqlConversations, database: Database
) -> None:
    await add(store, "q", "a")
    pages = await database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    limit = f"PRAGMA max_page_count = {pages}"
    event.listen(database.engine, "begin", lambda c: c.exec_driver_sql(limit))
    with pytest.raises(StoreUnavailable, match=r"can't be used now: database or disk is full"):
        await store.add_turn("me", "chat", "x" * 100_000)
    assert await told(store) == [("q", "a")]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("parley.sqlite", "is not a URL; sqlite:////absolute/path.sqlite is accepted"),
        ("sqlite://", "sqlite:// is not accepted"),
        ("sqlite:///:memory:", "is not accepted"),
        ("postgresql://me:secret@host/db", r"postgresql://me:\*\*\*@host/db is not accepted"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_by_name(url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PARLEY_STORE__URL.*{sentence}"):
        store_url(Settings(store=StoreSettings(url=url)))


def test_the_store_is_in_the_state_directory_unless_named(tmp_path: Path) -> None:
    url = store_url(Settings(state_dir=tmp_path))
    assert url.database == str(tmp_path / "parley.sqlite")


def test_migrations_may_hold_triggers_and_must_be_whole() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM b;\nEND;"
    assert statements(f"-- first\nCREATE TABLE a (b);\n\n{trigger}\n") == [
        "-- first\nCREATE TABLE a (b);",
        trigger,
    ]
    with pytest.raises(ValueError, match="the last statement has no end"):
        statements("CREATE TABLE a (b)")
