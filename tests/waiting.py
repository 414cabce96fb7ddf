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


def quick(measure: Callable[[], float], seconds: float, tries: int = 5) -> float:
    """The first of the measured durations that is below `seconds`; fails with all of them where
    none of `tries` is. A busy machine stalls some of them; what is slow by itself always is."""
    measured: list[float] = []
    while len(measured) < tries:
        measured.append(measure())
        if measured[-1] < seconds:
            return measured[-1]
    raise AssertionError(f"{measured} s, where less than {seconds} is due")
