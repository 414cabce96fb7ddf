"""A model whose calls take as long as a real one's: time passes on the test's clock, not here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.engine.runner import DecodeRow, PrefillPart
from service.ipc.messages import Frame, Step
from service.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.loop import FakeOutbox, Loop
from tests.fakes.runner import FakeRunner


@dataclass
class Machine:
    """Seconds, as they were measured with 0.5B parameters on two cores.

    A call of `n` rows takes `base + n * per_row`, one of 32 rows or more on BLAS `blas_base + n *
    blas_row`, and each row `per_position` more for every token before it.
    """

    base: float = 0.030
    per_row: float = 0.0075
    decode_row: float = 0.0120
    per_position: float = 7e-6
    blas_base: float = 0.8
    blas_row: float = 0.0043

    def rows(self, count: int, *, blas: bool) -> float:
        if blas and count > 31:
            return self.blas_base + count * self.blas_row
        return self.base + count * self.per_row


@dataclass
class TimedRunner(FakeRunner):
    """Needs its `clock`. `bulk_rows` says from where on BLAS is used."""

    clock: FakeClock = field(default_factory=FakeClock)
    machine: Machine = field(default_factory=Machine)

    def prefill(self, parts: Sequence[PrefillPart]) -> None:
        count = sum(len(part.token_ids) for part in parts)
        blas = self.bulk_rows is not None and count >= self.bulk_rows
        seconds = self.machine.rows(count, blas=blas)
        for part in parts:
            length = len(part.token_ids)
            seconds += self.machine.per_position * length * (part.start + length / 2)
        self.clock.now += seconds
        super().prefill(parts)

    def decode(self, rows: Sequence[DecodeRow]) -> None:
        runs = 1 + sum(b.slot > a.slot + 1 for a, b in itertools.pairwise(rows))
        self.clock.now += self.machine.base * runs + self.machine.decode_row * len(rows)
        super().decode(rows)


@dataclass
class TimedOutbox(FakeOutbox):
    """Notes when the text of each request came."""

    clock: FakeClock = field(default_factory=FakeClock)
    came: dict[int, list[float]] = field(default_factory=dict)

    def post(self, connection: int, frame: Frame) -> None:
        super().post(connection, frame)
        for delta in frame.deltas if isinstance(frame, Step) else ():
            self.came.setdefault(delta.id, []).append(self.clock())


@dataclass
class TimedLoop(Loop):
    """A loop in which time passes as on a real machine."""

    asked: dict[int, float] = field(default_factory=dict)

    def ask(self, request_id: int, text: str, connection: int = 1, **options: Any) -> None:
        self.asked[request_id] = self.clock()
        super().ask(request_id, text, connection, **options)

    def run(self, *events: tuple[float, Callable[[], None]], seconds: float = 600.0) -> None:
        """Let `events` happen, so many seconds from now; until nothing is left to do, or for so
        many seconds."""
        start, ahead = self.clock(), sorted(events, key=lambda event: event[0])
        while self.clock() < start + seconds:
            idle = self.engine.scheduler.idle and self.engine.inbox.empty()
            if idle and not ahead:
                return
            if idle:
                self.clock.now = max(self.clock.now, start + ahead[0][0])
            while ahead and self.clock() >= start + ahead[0][0]:
                self._happen(start, *ahead.pop(0))
            self.engine.turn()

    def _happen(self, start: float, after: float, event: Callable[[], None]) -> None:
        """When its time was, though the engine was busy then and hears of it now."""
        now, self.clock.now = self.clock.now, start + after
        event()
        self.clock.now = now

    def came(self, request_id: int) -> list[float]:
        """When each piece of the answer came."""
        assert isinstance(self.outbox, TimedOutbox)
        return self.outbox.came.get(request_id, [])

    def first_token(self, request_id: int) -> float:
        """Seconds from the question to the first token."""
        return self.came(request_id)[0] - self.asked[request_id]

    def gaps(self, request_id: int) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self.came(request_id))]


def timed_loop(
    num_slots: int = 8,
    bulk_rows: int | None = None,
    machine: Machine | None = None,
    max_waiting: int = 100,
) -> TimedLoop:
    """Slots of 8192 tokens, calls of 512; the machine has computed a few things already."""
    clock = FakeClock()
    runner = TimedRunner(
        num_slots,
        slot_length=8192,
        max_batch_tokens=512,
        bulk_rows=bulk_rows,
        following=lambda _: ord("a"),
        max_prompt_bytes=10_000,
        clock=clock,
        machine=machine or Machine(),
    )
    settings = EngineSettings(max_waiting=max_waiting)
    loop = TimedLoop(runner, settings, clock, TimedOutbox(clock=clock))
    for number in range(2):
        loop.ask(-1 - number, f"{number}" * 120, max_tokens=16, fair_key="earlier")
    loop.run()
    return loop
