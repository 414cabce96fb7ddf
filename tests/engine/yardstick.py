"""What limits in seconds are held against on a machine that is slower than the one they are for."""

from __future__ import annotations

import time

_SECONDS = 60e-6


def seconds_for_1000_squares() -> float:
    """Of this thread's time in plain Python; some 60 microseconds on the machine that limits are
    for, more where all takes longer."""
    start = time.thread_time()
    for _ in range(100):
        sum(number * number for number in range(1000))
    return (time.thread_time() - start) / 100


def slowness() -> float:
    """How many times as long everything takes here and now; at least 1."""
    return max(1.0, min(seconds_for_1000_squares() for _ in range(5)) / _SECONDS)
