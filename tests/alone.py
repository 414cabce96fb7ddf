"""Tests that measure time run while no other test does, in whichever process.

Everybody holds a lock while a test runs: together with others, or, to measure, alone. Whoever
wants it holds the gate meanwhile, so nobody is overtaken for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# Any two files will do; locks on them hold among all runs of this checkout.
_GATE, _TRACK = Path(__file__).parent, Path(__file__)


@contextlib.contextmanager
def on_the_track(*, alone: bool) -> Iterator[None]:
    """Returns when nobody measures and, to be `alone`, when nobody else is on it either."""
    with _open(_GATE) as gate, _open(_TRACK) as track:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(track, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
