"""The database file: opened, brought up to date, and used from threads of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from service.domain.errors import ConfigurationError, StoreUnavailable
from service.log import get_logger
from service.settings import Settings
from service.store.conversations import SqlConversations
from service.store.direct import BUSY_SECONDS, DirectConnections, begin_in_turn, waiting
from service.store.migrate import migrate
from service.store.spending import count_all_abandoned

NUM_THREADS = 4
_WRITES = {"writes": True}
_MERGE_INDEX = "INSERT INTO messages_text (messages_text) VALUES ('optimize')"
_CUT_SECONDS, _CUT_TRIES = 0.2, 10
_TRANSACTIONS_PER_CHECKPOINT = 1000  # of one worker; each stops all writers for a moment

_log = get_logger(__name__)

T = TypeVar("T")


class Database:
    """One sqlite file in WAL mode. Everything in one call is one transaction."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine = create_engine(
            url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
        )
        self._writing = self.engine.execution_options(**_WRITES)
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="store")
        self._direct = DirectConnections(self._name, _configure)

    def open(self) -> None:
        """Make the file what this version expects. Blocks. Raises `ConfigurationError`."""
        self._create_folder()
        try:
            with ExitStack() as on_failure:
                on_failure.callback(self.engine.dispose)
                _switch_to_wal(self.engine)
                migrate(self._writing)
                on_failure.pop_all()
        except (DatabaseError, sqlite3.DatabaseError) as error:
            raise ConfigurationError(
                f"The database {self._name} can't be used: {_reason(error)}. Restore it from a "
                "backup or move it away; PARLEY_STORE__URL names another one."
            ) from error

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._run(self.engine, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, committed. Raises `StoreUnavailable`. Once begun it is finished,
        also when the caller is cancelled."""
        return await self._run(self._writing, work)

    async def write_directly(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `write`, for what is on the way of every request: SQLAlchemy takes longer than these
        statements do, and so does waking a thread. Where nobody else writes just now it is done at
        once, else in a thread, in turn."""
        try:
            if self._direct.begin_now():
                return self._direct.finish(work)
        except sqlite3.DatabaseError as error:
            raise _unavailable(error) from error
        finally:
            self._checkpoint_when_due()

        def transaction() -> T:
            self._direct.begin_in_turn()
            return self._direct.finish(work)

        return await self._in_thread(transaction)

    async def erase(self, work: Callable[[Connection], T]) -> T:
        """As `write`, and no trace of what `work` deleted stays in the files: neither in the
        search index, which keeps deleted words until it is merged, nor in sqlite's log."""

        def transactions() -> T:
            with self._writing.begin() as connection:
                result = work(connection)
            with self._writing.begin() as connection:
                connection.exec_driver_sql(_MERGE_INDEX)
            _empty_log(self._direct.mine())
            return result

        return await self._in_thread(transactions)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._direct.close()
        self.engine.dispose()

    async def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with engine.begin() as connection:
                return work(connection)

        return await self._in_thread(transaction)

    async def _in_thread(self, transaction: Callable[[], T]) -> T:
        def run() -> T:
            try:
                return transaction()
            except (DatabaseError, sqlite3.DatabaseError) as error:
                raise _unavailable(error) from error

        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, run))

    def _checkpoint_when_due(self) -> None:
        """Whoever finds sqlite's log long brings it into the file, and waits for the disk: nobody
        who asks, but a thread."""

        def checkpoint() -> None:
            try:
                self._direct.mine().execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.DatabaseError as error:  # the next one may come to it
                _log.warning("log_not_emptied", reason=_reason(error))

        if self._direct.num_finished >= _TRANSACTIONS_PER_CHECKPOINT:
            self._direct.num_finished = 0
            self._threads.submit(checkpoint)

    @property
    def _name(self) -> str:
        return self.url.database or str(self.url)

    def _create_folder(self) -> None:
        try:
            Path(self._name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"The folder of the database {self._name} can't be made: {error.strerror}; "
                "name another place in PARLEY_STATE_DIR or PARLEY_STORE__URL."
            ) from error


async def open_database(settings: Settings) -> Database:
    """The file that the settings name, ready for use. Raises `ConfigurationError`."""
    database = Database(store_url(settings))
    await asyncio.to_thread(database.open)
    return database


async def open_store(settings: Settings) -> SqlConversations:
    """The conversations in the file that the settings name. Raises `ConfigurationError`."""
    return SqlConversations(await open_database(settings))


def check_store(settings: Settings) -> None:
    """Make sure, before anything else starts, that the store can be opened; makes it if there is
    none. Blocks. Raises `ConfigurationError`."""
    database = Database(store_url(settings))
    database.open()
    database.engine.dispose()


def settle_answers(settings: Settings) -> None:
    """Have the answers that were being written when the service ended count as cut, and towards
    the limits of those who had asked for them. For its start, before anybody writes. Blocks. Raises
    `ConfigurationError`."""
    database = Database(store_url(settings))
    try:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE messages SET state = 'cut' WHERE state = 'writing'")
            connection.exec_driver_sql("UPDATE conversations SET held_by = NULL, held_until = 0")
            raw: Any = connection.connection.dbapi_connection
            count_all_abandoned(raw, time.time())
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise ConfigurationError(
            f"The database {database.url.database} can't be written: {_reason(error)}."
        ) from error
    finally:
        database.engine.dispose()


def store_url(settings: Settings) -> URL:
    """Where the store is. Raises `ConfigurationError`."""
    if settings.store.url is None:
        return URL.create("sqlite", database=str(settings.state_dir / "parley.sqlite"))
    try:
        url = make_url(settings.store.url)
    except ArgumentError:
        raise ConfigurationError(
            "PARLEY_STORE__URL is not a URL; sqlite:////absolute/path.sqlite is accepted."
        ) from None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            f"PARLEY_STORE__URL={url.render_as_string(hide_password=True)} is not accepted; "
            "sqlite:////absolute/path.sqlite is."
        )
    return url


def _configure(connection: Any, _record: object = None) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see `_begin`
    # What is erased is overwritten: some builds of sqlite do so by themselves, others not.
    for pragma in ("foreign_keys = ON", "synchronous = NORMAL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """A transaction that will write says so at once: one that finds out later can't wait for
    another writer, and fails."""
    if not connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    raw: Any = connection.connection.dbapi_connection
    with waiting(raw, 0, afterwards=BUSY_SECONDS):
        has_begun = begin_in_turn(raw)
    if not has_begun:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # fails, in SQLAlchemy's words


def _empty_log(connection: sqlite3.Connection) -> None:
    """Bring the log into the file, and cut it. Whoever reads just now is waited for, a little: the
    next writer waits, too."""
    with waiting(connection, _CUT_SECONDS, afterwards=0):
        for _ in range(_CUT_TRIES):
            is_busy, _pages, _moved = connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
            if not is_busy:
                return
    _log.warning("erased_words_stay_in_log", reason="somebody reads without a pause")


def _switch_to_wal(engine: Engine) -> None:
    """Set the file's journal mode. sqlite doesn't wait by itself when another process does the
    same just now."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
        finally:
            raw.close()


def _unavailable(error: DatabaseError | sqlite3.DatabaseError) -> StoreUnavailable:
    return StoreUnavailable(
        f"The database can't be used now: {_reason(error)}.", retry_after_seconds=5
    )


def _reason(error: DatabaseError | sqlite3.DatabaseError) -> str:
    return str(error.orig if isinstance(error, DatabaseError) else error)
