"""What is on the way of every request speaks to sqlite itself: building and passing a statement
through SQLAlchemy takes several times as long as running it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Protocol, TypeVar

from service.store.conversations import Transactions

BUSY_SECONDS = 10.0
# What a writer waits before it asks again whether another one has finished. sqlite's own waits
# begin at 1 ms and grow to 100, where a whole transaction of ours takes a fraction of one.
_PATIENCE = (*[0.0001] * 20, *[0.0005] * 20)
_LONG_PATIENCE = 0.002

T = TypeVar("T")


class DirectTransactions(Transactions, Protocol):
    """Transactions on connections without anything in between. Raises `StoreUnavailable`."""

    async def write_directly(self, work: Callable[[sqlite3.Connection], T]) -> T: ...


class Counters:
    """What is counted by the clock, in seconds since 1970: one transaction reads it, decides and
    keeps, whichever worker asks."""

    def __init__(
        self, database: DirectTransactions, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._clock = clock


class DirectConnections:
    """One for each thread that asks, none of which waits unless told to."""

    def __init__(self, name: str, configure: Callable[[sqlite3.Connection], None]) -> None:
        self._name = name
        self._configure = configure
        self._mine = threading.local()
        self._all: list[sqlite3.Connection] = []
        self.num_finished = 0

    def mine(self) -> sqlite3.Connection:
        """This thread's own."""
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._name, BUSY_SECONDS, check_same_thread=False)
            self._configure(connection)  # looks at the file, which another one may just be opening
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA busy_timeout = 0")
            self._mine.connection = connection
            self._all.append(connection)
        return connection

    def begin_now(self) -> bool:
        """Begin to write; False where somebody else does."""
        return begins(self.mine())

    def begin_in_turn(self) -> None:
        """Begin to write as soon as nobody else does. Blocks."""
        if not begin_in_turn(self.mine()):
            self.mine().execute("BEGIN IMMEDIATE")  # raises what is in the way

    def finish(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, committed; what has been begun ends here, either way."""
        connection = self.mine()
        self.num_finished += 1
        try:
            result = work(connection)
            connection.execute("COMMIT")
            return result
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        for connection in self._all:
            connection.close()


@contextmanager
def waiting(raw: sqlite3.Connection, seconds: float, afterwards: float) -> Iterator[None]:
    """Have a connection wait so long for others in here, and `afterwards` when it is left."""
    raw.execute(f"PRAGMA busy_timeout = {1000 * seconds:.0f}")
    try:
        yield
    finally:
        raw.execute(f"PRAGMA busy_timeout = {1000 * afterwards:.0f}")


def begins(raw: sqlite3.Connection) -> bool:
    """Begin to write with a connection that doesn't wait; False where somebody else does."""
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def begin_in_turn(raw: sqlite3.Connection) -> bool:
    """Begin to write, with a connection that doesn't wait, as soon as nobody else does; False
    where that takes `BUSY_SECONDS`."""
    deadline = time.monotonic() + BUSY_SECONDS
    pauses = chain(_PATIENCE, repeat(_LONG_PATIENCE))
    while not begins(raw):
        if time.monotonic() > deadline:
            return False
        time.sleep(next(pauses))
    return True
