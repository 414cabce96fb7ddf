"""Connections without anything in between."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.store.direct import DirectConnections, begins


def test_a_file_that_another_one_has_locked_is_waited_for_when_it_is_opened(tmp_path: Path) -> None:
    name = str(tmp_path / "file.sqlite")
    other = sqlite3.connect(name, isolation_level=None)
    other.execute("CREATE TABLE rows (number)")
    other.execute("BEGIN EXCLUSIVE")
    looks = threading.Event()

    def configure(connection: sqlite3.Connection) -> None:
        looks.set()
        connection.execute("SELECT * FROM rows").fetchall()

    connections = DirectConnections(name, configure)
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(connections.mine)
        looks.wait()
        other.execute("COMMIT")
        opened.result()
    connections.close()
    other.close()


def test_one_that_has_been_opened_waits_for_nobody(tmp_path: Path) -> None:
    name = str(tmp_path / "file.sqlite")
    connections = DirectConnections(name, lambda _: None)
    mine = connections.mine()
    other = sqlite3.connect(name, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert not begins(mine)
    assert mine.execute("PRAGMA busy_timeout").fetchone() == (0,)
    connections.close()
    other.close()
