"""What is on the way of every request speaks to sqlite itself: building and passing a statement
through SQLAlchemy takes several times as long as running it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

from service.store.conversations import Transactions

T = TypeVar("T")


class DirectTransactions(Transactions, Protocol):
    """Transactions on connections without anything in between. Raises `StoreUnavailable`."""

    async def write_directly(self, work: Callable[[sqlite3.Connection], T]) -> T: ...
