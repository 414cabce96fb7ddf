"""The loop of an engine that makes vectors, on a fake model in the test's own thread."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.domain.errors import InvalidRequest
from service.domain.model import Mode, ModelInfo
from service.engine.embedding.embedder import EXIT_BROKEN, EXIT_DRAINED, Embedder, Vectors
from service.engine.embedding.turns import Asked
from service.engine.inbox import Drain
from service.engine.runner import DecodeAborted, RunnerError
from service.ipc.messages import Embedded, Ranked, Refused
from tests.fakes.clock import FakeClock
from tests.fakes.loop import FakeOutbox


@dataclass
class FakeReader:
    """Makes of tokens a vector of their sum and their number. `during` happens in each call."""

    mode: Mode = Mode.EMBED
    during: Callable[[], None] = lambda: None
    failures: list[Exception] = field(default_factory=list)
    calls: list[list[list[int]]] = field(default_factory=list)
    max_sequences: int = 4
    aborted: bool = False
    info: ModelInfo = field(init=False)

    def __post_init__(self) -> None:
        sizes = (100, 100, 4, 1000, 0, 0, 0)
        self.info = ModelInfo("fake", "", *sizes, mode=self.mode, vector_length=2)

    def read(self, inputs: Sequence[Sequence[int]]) -> Vectors:
        self.calls.append([list(token_ids) for token_ids in inputs])
        self.aborted = False
        self.during()
        if self.aborted:
            raise DecodeAborted
        if self.failures:
            raise self.failures.pop(0)
        return np.array([[sum(i), len(i)] for i in inputs], np.float32)

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Loop:
    """`ask`, then `step`, then look at what came out."""

    reader: FakeReader = field(default_factory=FakeReader)
    clock: FakeClock = field(default_factory=FakeClock)
    outbox: FakeOutbox = field(default_factory=FakeOutbox)
    embedder: Embedder = field(init=False)

    def __post_init__(self) -> None:
        self.embedder = Embedder(self.reader, self.outbox, batch_tokens=10, clock=self.clock)

    def ask(self, number: int, *inputs: list[int], connection: int = 1, by: str = "") -> None:
        key = (connection, number)
        self.embedder.open.add(key)
        self.embedder.inbox.put(Asked(key, by, list(inputs)))

    def drain(self, deadline: float = 1000.0) -> None:
        self.embedder.inbox.put(Drain(deadline))

    def vectors(self, number: int) -> list[tuple[float, ...]]:
        frames = [f for f in self.outbox.of(Embedded) if f.id == number]
        assert [f.last for f in frames] == [False] * (len(frames) - 1) + [True]
        return [struct.unpack("<2f", v) for f in frames for v in f.vectors]


def test_each_input_becomes_a_vector_of_length_one_in_order() -> None:
    loop = Loop()
    loop.ask(7, [3] * 1, [2, 2], [0])
    loop.embedder.step()
    three, four, one = loop.vectors(7)
    assert three == pytest.approx((3 / 10**0.5, 1 / 10**0.5))
    assert four == pytest.approx((4 / 20**0.5, 2 / 20**0.5))
    assert one == (0.0, 1.0)
    assert loop.outbox.of(Embedded)[0].num_tokens == (1, 2, 1)
    assert not loop.embedder.open


def test_dimensions_cut_the_vector_before_it_is_made_of_length_one() -> None:
    loop = Loop()
    loop.embedder.open.add((1, 1))
    loop.embedder.inbox.put(Asked((1, 1), "", [[5, 5]], dimensions=1))
    loop.embedder.step()
    (frame,) = loop.outbox.of(Embedded)
    assert struct.unpack("<f", frame.vectors[0]) == (1.0,)


def test_requests_that_wait_together_are_read_together() -> None:
    loop = Loop()
    loop.ask(1, [1], [2])
    loop.ask(2, [3])
    loop.embedder.step()
    assert loop.reader.calls == [[[1], [2], [3]]]
    assert len(loop.vectors(1)) == 2
    assert len(loop.vectors(2)) == 1


def test_a_long_request_is_answered_piece_by_piece() -> None:
    loop = Loop()
    loop.ask(1, *[[1] * 5] * 5)
    for _ in range(3):
        loop.embedder.step()
    assert [len(f.vectors) for f in loop.outbox.of(Embedded)] == [2, 2, 1]
    assert len(loop.vectors(1)) == 5


def test_a_reranking_model_answers_with_scores() -> None:
    loop = Loop(FakeReader(Mode.RERANK))
    loop.ask(1, [4], [2, 1])
    loop.embedder.step()
    assert loop.outbox.of(Ranked) == [Ranked(1, (4.0, 3.0), (1, 2), last=True)]


def test_what_is_cancelled_while_it_waits_is_never_read() -> None:
    loop = Loop()
    loop.ask(1, [1])
    loop.ask(2, [2])
    loop.embedder.close([(1, 1)])
    loop.embedder.step()
    assert loop.reader.calls == [[[2]]]
    assert not [f for _, f in loop.outbox.frames if getattr(f, "id", None) == 1]


def test_a_call_that_nobody_waits_for_any_more_is_cut_short() -> None:
    loop = Loop()
    loop.reader.during = lambda: loop.embedder.close([(1, 1)])
    loop.ask(1, [1])
    loop.embedder.step()
    assert loop.reader.aborted
    assert not loop.outbox.frames


def test_a_call_that_somebody_still_waits_for_goes_on() -> None:
    loop = Loop()
    loop.reader.during = lambda: loop.embedder.close([(1, 1)])
    loop.ask(1, [1])
    loop.ask(2, [2])
    loop.embedder.step()
    assert not loop.reader.aborted
    assert len(loop.vectors(2)) == 1


def test_an_abort_that_came_too_late_costs_the_next_call_but_no_answer() -> None:
    loop = Loop()
    loop.reader.failures = [DecodeAborted()]
    loop.ask(1, [1])
    loop.embedder.step()
    loop.embedder.step()
    assert len(loop.vectors(1)) == 1


def test_what_the_model_cannot_read_is_refused_and_the_next_request_works() -> None:
    loop = Loop()
    loop.reader.failures = [RunnerError("odd")]
    loop.ask(1, [1])
    loop.embedder.step()
    assert [f.code for f in loop.outbox.of(Refused)] == ["generation_failed"]
    loop.ask(2, [2])
    loop.embedder.step()
    assert len(loop.vectors(2)) == 1


def test_a_model_that_broke_ends_the_process_after_everybody_was_told() -> None:
    loop = Loop()
    loop.reader.failures = [RunnerError("out of memory", fatal=True)]
    loop.ask(1, [1])
    loop.ask(2, [2] * 10)
    assert loop.embedder.run() == EXIT_BROKEN
    assert {f.id: f.code for f in loop.outbox.of(Refused)} == dict.fromkeys(
        (1, 2), "engine_unavailable"
    )


def test_numbers_that_are_none_are_an_error_and_no_answer() -> None:
    loop = Loop()
    loop.reader.read = lambda inputs: np.full((1, 2), np.nan, np.float32)  # type: ignore[method-assign]
    loop.ask(1, [1])
    loop.embedder.step()
    assert [f.code for f in loop.outbox.of(Refused)] == ["generation_failed"]


def test_draining_finishes_what_is_there() -> None:
    loop = Loop()
    loop.ask(1, *[[1] * 5] * 5)
    loop.drain()
    assert loop.embedder.run() == EXIT_DRAINED
    assert len(loop.vectors(1)) == 5


def test_at_the_deadline_of_a_drain_the_rest_is_refused() -> None:
    loop = Loop()
    loop.reader.during = lambda: setattr(loop.clock, "now", loop.clock.now + 10)
    loop.ask(1, *[[1] * 5] * 5)
    loop.drain(deadline=loop.clock.now + 15)
    assert loop.embedder.run() == EXIT_DRAINED
    assert [f.code for f in loop.outbox.of(Refused)] == ["engine_unavailable"]
    assert len(loop.outbox.of(Embedded)) == 2


def test_a_drain_ends_though_the_last_request_was_refused_before_it_could_be_read() -> None:
    loop = Loop()
    loop.embedder.open.add((1, 1))
    loop.drain()
    loop.reader.during = lambda: pytest.fail("nothing to read")
    loop.embedder.refuse((1, 1), InvalidRequest("no"))
    assert loop.embedder.run() == EXIT_DRAINED


def test_when_to_try_again_follows_from_what_waits_and_how_long_that_takes() -> None:
    loop = Loop()
    loop.reader.during = lambda: setattr(loop.clock, "now", loop.clock.now + 10)
    loop.ask(1, *[[1] * 10] * 5)
    assert loop.embedder.retry_after() == 1.0
    loop.embedder.step()
    assert loop.embedder.retry_after() == pytest.approx(40.0)
