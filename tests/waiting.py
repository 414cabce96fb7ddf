"""Waiting for what cannot call back: the state of another process, seen from outside.

This is the one place of the tests that pauses. What can be waited on (an event, a line in a pipe,
the end of a process) is waited on where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
PAUSE_SECONDS = 0.02


def until(
    ask: Callable[[], Answer], satisfied: Callable[[Answer], bool] = bool, seconds: float = 60
) -> Answer:
    """The first answer that is satisfying; fails with the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while not satisfied(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(PAUSE_SECONDS)
    return answer
