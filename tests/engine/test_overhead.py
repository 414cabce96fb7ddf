"""What the engine's own Python costs, beside the model's work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from service.domain.sampling import Sampling
from service.engine.runner import DecodeRow, Matcher, PrefillPart
from service.engine.sampling.candidates import Row
from service.engine.sampling.dry import Breakers
from service.engine.sampling.sampler import RowSampler
from tests.engine.yardstick import seconds_for_1000_squares
from tests.fakes.alphabet import END
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner, FakeSampler

pytestmark = pytest.mark.timing

STREAMS = 8
STEPS = 100
ROUNDS = 20


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


@dataclass
class Letters:
    """A vocabulary of 4096 tokens, whose likely ones are letters."""

    size: int = 4096
    ends: frozenset[int] = frozenset()
    suppressed: tuple[int, ...] = ()

    def breakers(self, texts: tuple[str, ...]) -> Breakers:
        return {}

    def rows(self) -> Row:
        logits = np.random.default_rng(1).normal(0, 2, (STREAMS, self.size)).astype(np.float32)
        logits[:, ord("a") : ord("z")] += np.linspace(10, 16, 25, dtype=np.float32)
        return logits


@dataclass
class SamplingRunner(InstantRunner):
    """Only the choice of tokens is real; tokens that are no letters look like x."""

    def is_end(self, token_id: int) -> bool:
        return False

    def piece(self, token_id: int) -> bytes:
        return super().piece(token_id) if token_id < END else b"x"

    def create_sampler(  # type: ignore[override]
        self, sampling: Sampling, prompt_tail: Sequence[int], matcher: Matcher | None = None
    ) -> RowSampler:
        letters = Letters()
        return RowSampler(sampling, letters.rows().__getitem__, letters, prompt_tail=prompt_tail)


@pytest.mark.parametrize(
    ("runner", "sampling"),
    [
        (InstantRunner, Sampling(temperature=0)),
        (SamplingRunner, Sampling(temperature=0)),
        (SamplingRunner, Sampling()),
        (SamplingRunner, Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)),
    ],
    ids=["engine alone", "greedy", "temperature 1", "llama-server's defaults"],
)
def test_eight_streams_cost_less_than_60_microseconds_of_python_per_token(
    runner: type[InstantRunner], sampling: Sampling
) -> None:
    loop = Loop(runner(num_slots=STREAMS, slot_length=4096))
    loop.engine.scheduler.max_waiting = STREAMS
    for number in range(STREAMS):
        options: dict[str, Any] = {"stop": ("STOP", "User:"), "sampling": sampling}
        loop.ask(number, f"{number} prompt>", connection=1 + number % 2, **options)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == STREAMS)
    # The machine may be busy with other things, for a while or all the time, or slow.
    rounds = [(_seconds(loop), seconds_for_1000_squares()) for _ in range(ROUNDS)]
    seconds, squares = map(min, zip(*rounds, strict=True))
    assert len(loop.text(0)) >= ROUNDS * STEPS
    assert seconds / (STEPS * STREAMS) < max(60e-6, squares)


def _seconds(loop: Loop) -> float:
    """Of this thread, for so many steps."""
    start = time.thread_time()
    loop.turn(STEPS)
    return time.thread_time() - start
