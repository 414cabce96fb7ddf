"""llama.cpp builds a graph anew when the shape of a call changes; in steady work it must not."""

from __future__ import annotations

import llama_cpp.llama_cpp as llama
import pytest

from service.domain.chat import PromptPiece
from service.domain.sampling import Sampling
from service.engine.engine import Engine
from service.engine.inbox import Arrived, Tokenized
from service.engine.llama import LlamaRunner
from service.engine.order.cost import CallCost
from service.engine.sequence import Job
from service.ipc.messages import Submit
from service.settings import EngineSettings
from tests.fakes.loop import FakeOutbox

pytestmark = pytest.mark.model

STEPS = 60


def ask(engine: Engine, request_id: int, max_tokens: int = 150) -> None:
    """An endless answer: the model is kept from ending it."""
    ends = {i: -100.0 for i in range(engine.runner.info.vocabulary_size) if engine.runner.is_end(i)}
    prompt = (PromptPiece(f"{request_id}: count from 1 to 9.", trusted=False),)
    sampling = Sampling(temperature=0, logit_bias=ends)
    submit = Submit(request_id, f"r{request_id}", prompt, sampling, max_tokens=max_tokens)
    job = Job(1, submit, 0.0)
    engine.inbox.put(Arrived(job))
    engine.inbox.put(Tokenized(job, engine.runner.tokenize(prompt)))


def reused(runner: LlamaRunner) -> int:
    return int(llama.llama_perf_context(runner._context).n_reused)


def generating(engine: Engine) -> list[int]:
    return [s.lane.index for s in engine.scheduler.generating()]


def padding_engine(runner: LlamaRunner) -> Engine:
    """On a machine where a row costs next to nothing."""
    engine = Engine(runner, FakeOutbox(), EngineSettings())
    cost = CallCost()
    for rows in (1, 2, 3, 4, 5, 6, 7, 8):
        cost.observe(rows, 1 + rows / 1000)
    engine.cost.decode = cost
    return engine


def test_steady_streams_reuse_the_graph_in_every_step(pocket: LlamaRunner) -> None:
    engine = Engine(pocket, FakeOutbox(), EngineSettings())
    for number in range(4):
        ask(engine, number)
    while len(generating(engine)) < 4:
        engine.turn()
    engine.turn()
    before = reused(pocket)
    for _ in range(STEPS):
        engine.turn()
    assert len(generating(engine)) == 4
    assert reused(pocket) - before >= 0.98 * STEPS


def test_a_padded_hole_between_streams_costs_no_graph_either(pocket: LlamaRunner) -> None:
    engine = padding_engine(pocket)
    for number in range(3):
        ask(engine, number, max_tokens=10 if number == 1 else 150)
    while len(engine.scheduler.running) != 2 or len(generating(engine)) != 2:
        engine.turn()
    slots = generating(engine)
    assert slots[1] == slots[0] + 2
    engine.turn()
    before = reused(pocket)
    for _ in range(STEPS):
        engine.turn()
    assert generating(engine) == slots
    assert reused(pocket) - before >= 0.98 * STEPS
