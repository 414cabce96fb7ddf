"""What the engine's own Python costs, beside the model's work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.sampling import Sampling
from service.engine.runner import DecodeRow, Matcher, PrefillPart
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner, FakeSampler

STREAMS = 8
STEPS = 300


class InstantSampler(FakeSampler):
    def sample(self, row: int) -> int:
        return ord("a")


@dataclass
class InstantRunner(FakeRunner):
    """A model that takes no time at all, and checks nothing."""

    def prefill(self, parts: Sequence[PrefillPart]) -> None:
        pass

    def decode(self, rows: Sequence[DecodeRow]) -> None:
        pass

    def create_sampler(
        self, sampling: Sampling, prompt_tail: Sequence[int], matcher: Matcher | None = None
    ) -> InstantSampler:
        return InstantSampler(self, sampling, matcher)


def test_eight_streams_cost_less_than_60_microseconds_of_python_per_token() -> None:
    loop = Loop(InstantRunner(num_slots=STREAMS, slot_length=4096))
    loop.engine.scheduler.max_waiting = STREAMS
    for number in range(STREAMS):
        loop.ask(number, f"{number} prompt>", connection=1 + number % 2, stop=("STOP", "User:"))
    loop.until(lambda: len(loop.engine.scheduler.generating()) == STREAMS)
    start = time.thread_time()
    loop.turn(STEPS)
    seconds = time.thread_time() - start
    assert len(loop.text(0)) >= STEPS
    assert seconds / (STEPS * STREAMS) < 60e-6
