"""The best tokens found in the graph, and batches filled up: what cards want is right anywhere.

Here the processor does it all; whether it pays on a card is for `test_gpu.py` and benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import llama_cpp.llama_cpp as llama
import pytest

from service.domain.sampling import Sampling
from service.engine.llama import NUM_BEST, LlamaRunner, create_runner
from service.engine.order.scheduler import plan_decode
from service.engine.runner import DecodeRow, PrefillPart, RunnerError
from service.engine.sampling.on_card import BestSampler, is_among_best
from service.engine.sampling.sampler import RowSampler
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.test_speculation_pocket import CheapRows
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner

pytestmark = pytest.mark.model

TOP_K = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=7)


@pytest.fixture(scope="module")
def carded() -> Iterator[LlamaRunner]:
    """As on a card: candidates are found in the graph, and batches are filled up."""
    settings = EngineSettings(slots=8, gpu_sampling="on", gpu_padding="on")
    runner = create_runner(settings, POCKET, "pocket", lambda _: None)
    runner.warm_up()
    yield runner
    runner.close()


def answers(runner: LlamaRunner, samplings: list[Sampling], **options: Any) -> list[str]:
    """What is said to as many as ask at once."""
    for slot in range(runner.num_slots):
        runner.trim(slot, 0)
    loop = Loop(cast(FakeRunner, runner), EngineSettings(), CheapRows())
    for number, sampling in enumerate(samplings):
        prompt = f"<|im_start|>user\nStory {number}, please.<|im_end|>\n<|im_start|>assistant\n"
        loop.ask(number, prompt, sampling=sampling, max_tokens=40, **options)
    loop.finish()
    return [loop.text(number) for number in range(len(samplings))]


MIXTURES: list[list[Sampling]] = [
    [Sampling(temperature=0)],
    [TOP_K],
    [replace(TOP_K, seed=n) for n in range(5)],
    [TOP_K, Sampling(seed=1), Sampling(temperature=0), replace(TOP_K, repeat_penalty=1.2)],
    [replace(TOP_K, typical_p=0.9), replace(TOP_K, xtc_probability=0.5), Sampling(mirostat=2)],
]


@pytest.mark.parametrize("samplings", MIXTURES)
def test_answers_are_the_same_as_with_whole_rows(
    pocket: LlamaRunner, carded: LlamaRunner, samplings: list[Sampling]
) -> None:
    # One after the other: what is beside an answer in a batch may move its last bits.
    for sampling in [replace(s, seed=3) if s.seed is None else s for s in samplings]:
        assert answers(carded, [sampling]) == answers(pocket, [sampling])


@pytest.mark.parametrize("samplings", MIXTURES)
def test_those_who_look_at_whole_rows_and_those_who_do_not_get_on(
    pocket: LlamaRunner, carded: LlamaRunner, samplings: list[Sampling]
) -> None:
    fixed = [replace(s, seed=3) if s.seed is None else s for s in samplings]
    assert answers(carded, fixed) == answers(pocket, fixed)


def test_log_probabilities_are_those_of_whole_rows(
    pocket: LlamaRunner, carded: LlamaRunner
) -> None:
    found = []
    for runner in (pocket, carded):
        loop = Loop(cast(FakeRunner, runner), EngineSettings(), CheapRows())
        loop.ask(1, "<|im_start|>user\nHi", sampling=TOP_K, max_tokens=5, logprobs=3)
        loop.finish()
        found.append([p.chosen.logprob for d in loop.deltas(1) for p in d.logprobs])
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_only_the_best_come_over_unless_somebody_wants_all(carded: LlamaRunner) -> None:
    for slot in range(2):
        carded.trim(slot, 0)
        carded.prefill([PrefillPart(slot, 0, [5, 6, 7])])
    carded.takes_rows(0, whole=False)
    carded.takes_rows(1, whole=True)
    carded.decode([DecodeRow(0, 3, 9), DecodeRow(1, 3, 9)])
    ids, logits = carded._best(0)
    assert ids is not None
    assert ids.size == logits.size == NUM_BEST
    nothing, row = carded._best(1)
    assert nothing is None
    best = set(row.argsort()[::-1][:NUM_BEST].tolist())
    assert set(ids.tolist()) == best
    assert logits.tolist() == pytest.approx(row[ids].tolist(), abs=1e-4)
    with pytest.raises(RunnerError, match="best tokens only"):
        carded.logprob(0, 1, 1)


def test_a_slot_can_change_its_mind_any_number_of_times(carded: LlamaRunner) -> None:
    carded.trim(0, 0)
    carded.prefill([PrefillPart(0, 0, [5, 6, 7])])
    for place, whole in enumerate([True, False, False, True, True, False] * 3, 3):
        carded.takes_rows(0, whole=whole)
        carded.decode([DecodeRow(0, place, 9)])
        ids, _ = carded._best(0)
        assert (ids is None) == whole


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0), True),
        (TOP_K, True),
        (Sampling(), False),
        (Sampling(top_p=0.9), False),
        (replace(TOP_K, top_k=NUM_BEST), False),
        (replace(TOP_K, repeat_penalty=1.1), False),
        (replace(TOP_K, logit_bias={3: 2.0}), False),
        (replace(TOP_K, min_tokens=4), False),
        (replace(TOP_K, dry_multiplier=0.8), False),
        (replace(TOP_K, top_n_sigma=1.0), False),
        (replace(TOP_K, mirostat=1), False),
        (replace(TOP_K, ignore_eos=True), False),
    ],
)
def test_only_options_that_the_best_tokens_decide_go_without_the_others(
    carded: LlamaRunner, sampling: Sampling, expected: bool
) -> None:
    assert is_among_best(sampling, carded._vocabulary, NUM_BEST) == expected
    sampler = carded.create_sampler(sampling, [1, 2])
    assert isinstance(sampler, BestSampler if expected else RowSampler)
    assert sampler.needs_whole_rows != expected


def padded_rows(busy: list[int], num_slots: int = 8, full: tuple[int, ...] = ()) -> list[int]:
    """The slots of a step for those that generate, filled up."""
    loop = Loop(FakeRunner(num_slots=num_slots, pads_batches=True))
    loop.engine.scheduler.max_waiting = num_slots
    for number in range(num_slots):
        loop.ask(number, f"{number}>", max_tokens=20)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == num_slots)
    sequences = [s for s in loop.engine.scheduler.generating() if s.lane.index in busy]
    for slot in loop.engine.slots:
        slot.busy = slot.index in busy or slot.index in full
    plan = plan_decode(sequences, loop.engine.slots, lambda _: False, to_buckets=True)
    at = dict(plan.sampled)
    assert [plan.rows[row].slot for row in at] == [s.lane.index for s in sequences]
    assert {s.index for s in plan.padded} == {r.slot for r in plan.rows} - set(busy)
    return [row.slot for row in plan.rows]


@pytest.mark.parametrize(
    ("busy", "expected"),
    [
        ([0], [0]),
        ([2, 3], [2, 3]),
        ([0, 1, 2], [0, 1, 2, 3]),
        ([5, 6, 7], [4, 5, 6, 7]),
        ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([0, 2], [0, 2]),
    ],
)
def test_a_step_is_filled_up_to_the_next_power_of_two(busy: list[int], expected: list[int]) -> None:
    assert padded_rows(busy) == expected


def test_where_a_neighbour_reads_its_prompt_a_step_stays_as_it_is() -> None:
    assert padded_rows([1, 2, 3], full=(0, 4)) == [1, 2, 3]
    assert padded_rows([1, 2, 3], full=(4,)) == [0, 1, 2, 3]


def test_with_six_slots_the_largest_step_has_six_rows() -> None:
    assert padded_rows([0, 1, 2, 3, 4], num_slots=6) == [0, 1, 2, 3, 4, 5]


def test_those_who_come_and_go_leave_the_graph_as_it_is(carded: LlamaRunner) -> None:
    """Three, four, three answers at once: every step has four rows."""
    for slot in range(carded.num_slots):
        carded.trim(slot, 0)
    loop = Loop(cast(FakeRunner, carded), EngineSettings(), CheapRows())
    ends = {i: -100.0 for i in range(carded.info.vocabulary_size) if carded.is_end(i)}
    for number in range(4):
        sampling = Sampling(temperature=0, logit_bias=ends)
        loop.ask(number, f"{number}: count", sampling=sampling, max_tokens=20 + 20 * number)
    loop.until(lambda: len(loop.engine.scheduler.generating()) == 4)
    loop.turn(2)
    before, steps = int(llama.llama_perf_context(carded._context).n_reused), 0
    while len(loop.engine.scheduler.generating()) > 2:
        loop.turn()
        steps += 1
    assert steps > 20
    assert int(llama.llama_perf_context(carded._context).n_reused) - before >= steps - 2
    loop.finish()


def test_what_filled_up_a_step_leaves_no_trace(pocket: LlamaRunner, carded: LlamaRunner) -> None:
    samplings = [replace(TOP_K, seed=n) for n in range(3)]
    assert answers(carded, samplings) == answers(pocket, samplings)
    held = [carded.resident(slot) for slot in range(carded.num_slots)]
    assert sum(count > 0 for count in held) == 3
