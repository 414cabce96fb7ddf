"""What was acknowledged survives kill -9 at random moments: in the store, and over HTTP."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.parley import Parley, running_parley
from tests.e2e.processes import workers_of
from tests.waiting import until

pytestmark = pytest.mark.services

WRITERS = Path(__file__).parent / "programs" / "killed_writers.py"


@pytest.mark.parametrize(
    "num_kills", [25, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_no_acknowledged_write_is_lost_and_the_file_stays_sound(
    tmp_path: Path, num_kills: int
) -> None:
    seed = random.randrange(2**32)
    done = subprocess.run(
        [sys.executable, str(WRITERS), str(tmp_path / "parley.sqlite"), str(num_kills), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none lost" in done.stdout


class Talker:
    """A thread that says one thing after the other in a conversation of its own.

    `acknowledged` holds what was answered whole; what broke, with a worker, may be kept or not.
    At its end it goes on until it is answered once more.
    """

    def __init__(self, parley: Parley, name: str) -> None:
        self.name = name
        self.acknowledged: dict[str, str] = {}
        self._parley = parley
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self) -> Talker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _talk(self) -> None:
        number = 0
        last = False
        while not last:
            was_told_to_stop = self._stop.is_set()
            number += 1
            text = f"{self.name} says {number}"
            body = {"message": text, "session_id": self.name, "max_tokens": 4}
            try:
                reply = httpx.post(self._parley.url + "/chat", json=body, timeout=60)
            except httpx.TransportError:
                continue
            if reply.status_code == 200:
                self.acknowledged[text] = reply.json()["response"]
                last = was_told_to_stop


@pytest.fixture
def parley(tmp_path: Path) -> Iterator[Parley]:
    with running_parley(tmp_path, "--model", "pocket") as service:
        service.wait_healthy()
        yield service


@pytest.mark.model
@pytest.mark.parametrize(
    "num_kills", [6, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_answered_messages_are_kept_whichever_workers_are_killed(
    tmp_path: Path, parley: Parley, num_kills: int
) -> None:
    moments = random.Random(seed := random.randrange(2**32))
    with Talker(parley, "ann") as ann, Talker(parley, "ben") as ben:
        until(lambda: ann.acknowledged and ben.acknowledged)
        for _ in range(num_kills):
            # A random moment is what is wanted; there is nothing to wait for.
            threading.Event().wait(moments.uniform(0.05, 0.4))
            found = until(lambda: workers_of(parley), lambda found: len(found) > 1)
            os.kill(moments.choice(found), signal.SIGKILL)
    parley.wait_healthy()
    for talker in (ann, ben):
        exported = parley.get(f"/v1/conversations/{talker.name}/export").json()["messages"]
        kept = {
            asked["content"]: answered["content"]
            for asked, answered in zip(exported[::2], exported[1::2], strict=True)
        }
        lost = {t: a for t, a in talker.acknowledged.items() if kept.get(t) != a}
        assert not lost, f"seed {seed}"
    assert parley.stop() == 0
    with sqlite3.connect(tmp_path / "state" / "parley.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
