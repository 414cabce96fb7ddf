"""Waiting: for children, sockets, signals and the clock, in one thread."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Action = Callable[[], None]


@dataclass(order=True, slots=True)
class Timer:
    """Something to do at `due` (monotonic seconds), unless cancelled before."""

    due: float
    turn: int
    action: Action | None = field(compare=False)

    def cancel(self) -> None:
        self.action = None


class Loop:
    """Calls back when a file is ready, a signal has come, or a timer is due.

    Signals are only noted when they arrive, and acted on between callbacks.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._turns = itertools.count()
        self._signals: dict[int, Callable[[int], None]] = {}
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self.watch(self._woken.fileno(), selectors.EVENT_READ, self._take_signals)

    @staticmethod
    def now() -> float:
        return time.monotonic()

    def on_signals(self, numbers: Iterable[int], action: Callable[[int], None]) -> None:
        """Call `action(number)` for each arrival. One that our starter ignores stays ignored,
        where it is SIGHUP: that is how `nohup` asks."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._signals[number] = action
            signal.signal(number, lambda _number, _frame: None)

    def watch(self, fd: int, events: int, action: Action) -> None:
        """Call `action` whenever `fd` is ready for `events`; replaces an earlier watch of it."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, action)
        else:
            self._selector.register(fd, events, action)

    def unwatch(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def call_in(self, seconds: float, action: Action) -> Timer:
        timer = Timer(self.now() + max(seconds, 0.0), next(self._turns), action)
        heapq.heappush(self._timers, timer)
        return timer

    def run_once(self) -> None:
        """Wait for whatever is next, and do it."""
        # Files first: a judgement that is due must know what has already been said.
        for key, _ in self._selector.select(self._wait_seconds()):
            # An earlier callback may have closed this one, or put another in its place.
            if self._selector.get_map().get(key.fd) == key:
                key.data()
        while self._timers and self._timers[0].due <= self.now():
            if action := heapq.heappop(self._timers).action:
                action()

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _wait_seconds(self) -> float | None:
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        return max(self._timers[0].due - self.now(), 0.0) if self._timers else None

    def _take_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._woken.recv(4096):
                if number in self._signals:
                    self._signals[number](number)
