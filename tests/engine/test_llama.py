"""The runner on Pocket and on a slower random model: steps, slots, aborts, refusals."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.chat import PromptPiece
from service.domain.errors import ModelFileError
from service.domain.sampling import Sampling
from service.engine.llama import LlamaRunner, create_runner
from service.engine.planning.tuning import Tuning
from service.engine.runner import DecodeAborted, DecodeRow, PrefillPart, RunnerError
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.gguf_file import RandomModel
from tests.waiting import quick

pytestmark = pytest.mark.model

GREEDY = Sampling(temperature=0.0)
QUESTIONS = (
    "What is the capital of France?",
    "Count from 1 to 9.",
    "Say hello.",
    "What is two plus three?",
    "My name is Ada. What is my name?",
    "Name three colours.",
    "Repeat after me: blue bird",
    "What is the opposite of hot?",
)


def chat(runner: LlamaRunner, question: str) -> list[int]:
    return runner.tokenize(
        (
            PromptPiece("<|im_start|>user\n", trusted=True),
            PromptPiece(question, trusted=False),
            PromptPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", trusted=True),
        )
    )


def read_prompts(runner: LlamaRunner, prompts: dict[int, list[int]]) -> None:
    for slot, ids in prompts.items():
        runner.prefill([PrefillPart(slot, 0, ids[:-1])])


def generate(
    runner: LlamaRunner,
    prompts: dict[int, list[int]],
    *,
    sampling: Sampling = GREEDY,
    steps: int = 40,
) -> dict[int, list[int]]:
    """Continue every slot to its end; the slots hold all of each prompt but its last token."""
    samplers = {slot: runner.create_sampler(sampling, ids) for slot, ids in prompts.items()}
    tokens = {slot: list(ids) for slot, ids in prompts.items()}
    running = sorted(prompts)
    for _ in range(steps):
        runner.decode([DecodeRow(s, len(tokens[s]) - 1, tokens[s][-1]) for s in running])
        for row, slot in enumerate(running):
            tokens[slot].append(samplers[slot].sample(row))
        running = [slot for slot in running if not runner.is_end(tokens[slot][-1])]
        if not running:
            break
    for sampler in samplers.values():
        sampler.close()
    return {slot: ids[len(prompts[slot]) :] for slot, ids in tokens.items()}


def alone(runner: LlamaRunner, ids: list[int], sampling: Sampling = GREEDY) -> list[int]:
    runner.trim(0, 0)
    read_prompts(runner, {0: ids})
    return generate(runner, {0: ids}, sampling=sampling)[0]


def text(runner: LlamaRunner, ids: Sequence[int]) -> str:
    return b"".join(runner.piece(i) for i in ids).decode()


def test_pocket_answers(pocket: LlamaRunner) -> None:
    answer = alone(pocket, chat(pocket, "What is the capital of France?"))
    assert "Paris" in text(pocket, answer)
    assert pocket.is_end(answer[-1])


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.7, seed=11)], ids=str)
def test_eight_together_write_what_each_writes_alone(
    pocket: LlamaRunner, sampling: Sampling
) -> None:
    prompts = {slot: chat(pocket, question) for slot, question in enumerate(QUESTIONS)}
    expected = {slot: alone(pocket, ids, sampling) for slot, ids in prompts.items()}
    pocket.trim(0, 0)
    read_prompts(pocket, prompts)
    assert generate(pocket, prompts, sampling=sampling) == expected


def test_prompts_read_together_in_chunks_mean_the_same(pocket: LlamaRunner) -> None:
    prompts = {slot: chat(pocket, QUESTIONS[slot]) for slot in (2, 3, 6)}
    expected = {slot: alone(pocket, ids) for slot, ids in prompts.items()}
    pocket.trim(0, 0)
    for at in range(0, max(len(ids) for ids in prompts.values()), 5):
        chunks = {slot: ids[:-1][at : at + 5] for slot, ids in prompts.items()}
        pocket.prefill([PrefillPart(slot, at, ids) for slot, ids in chunks.items() if ids])
    assert generate(pocket, prompts) == expected


def test_what_ends_a_prompt_is_followed_by_the_same_token_as_in_a_step_of_its_own(
    pocket: LlamaRunner,
) -> None:
    prompts = {slot: chat(pocket, question) for slot, question in enumerate(QUESTIONS)}
    first = {slot: alone(pocket, ids)[0] for slot, ids in prompts.items()}
    pocket.trim(0, 0)
    for slots in ((0, 1, 2), (3,), (4, 5, 6, 7)):  # of different lengths, and one goes on later
        parts = [PrefillPart(s, 0, prompts[s][: -1 if s == 5 else None], s != 5) for s in slots]
        pocket.prefill(parts)
        for row, slot in enumerate(s for s in slots if s != 5):
            assert pocket.create_sampler(GREEDY, prompts[slot]).sample(row) == first[slot]
    with pytest.raises(RunnerError, match="row 3 was not decoded"):
        pocket.create_sampler(GREEDY, [1]).sample(3)


def test_a_trimmed_slot_goes_on_as_if_it_had_never_read_more(pocket: LlamaRunner) -> None:
    ids = chat(pocket, QUESTIONS[0])
    expected = alone(pocket, ids)
    assert pocket.resident(0) > len(ids)
    assert pocket.trim(0, len(ids) - 1) == len(ids) - 1
    assert generate(pocket, {0: ids})[0] == expected


def test_a_forked_slot_goes_on_like_its_source(pocket: LlamaRunner) -> None:
    ids, other = chat(pocket, QUESTIONS[0]), chat(pocket, QUESTIONS[7])
    expected, unrelated = alone(pocket, ids), alone(pocket, other)
    pocket.trim(0, 0)
    read_prompts(pocket, {0: ids, 4: chat(pocket, "Something else.")})
    generate(pocket, {0: ids})
    assert pocket.fork(0, 4, len(ids) - 1) == len(ids) - 1
    assert generate(pocket, {4: ids})[4] == expected
    # A shared beginning, then another end.
    shared = next(i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b)
    assert pocket.fork(0, 5, shared) == shared
    pocket.prefill([PrefillPart(5, shared, other[shared:-1])])
    assert generate(pocket, {5: other})[5] == unrelated
    assert pocket.resident(0) == len(ids) + len(expected) - 1


def test_trim_and_fork_stay_in_their_bounds(pocket: LlamaRunner) -> None:
    pocket.prefill([PrefillPart(1, 0, [50, 51, 52])])
    assert pocket.trim(1, 10) == 3
    assert pocket.trim(1, -5) == 0
    assert pocket.fork(1, 1, 0) == 0
    pocket.prefill([PrefillPart(1, 0, [50, 51, 52])])
    assert pocket.fork(1, 2, 99) == 3
    assert pocket.fork(1, 1, 2) == 2
    with pytest.raises(RunnerError, match="slot 8 does not exist"):
        pocket.fork(1, 8, 1)


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ([], "an empty batch"),
        ([PrefillPart(0, 0, [])], "has room for 2048 tokens, not for 0"),
        ([PrefillPart(-1, 0, [5])], "slot -1 does not exist"),
        ([PrefillPart(8, 0, [5])], "slot 8 does not exist; there are 8"),
        ([PrefillPart(0, 0, [2048])], "token ids 2048 to 2048; the model has 0 to 2047"),
        ([PrefillPart(0, 0, [5, -1])], "token ids -1 to 5"),
        ([PrefillPart(0, 1, [5])], "slot 0 holds 0 tokens; cannot continue at 1"),
        ([PrefillPart(1, 0, [5]), PrefillPart(0, 0, [5])], "slot 0 comes after slot 1"),
        ([PrefillPart(1, 0, [5]), PrefillPart(1, 0, [5])], "slot 1 comes after slot 1"),
        ([PrefillPart(0, 0, [5] * 513)], "513 tokens in one call; at most 512 fit"),
        ([PrefillPart(s, 0, [5] * 128) for s in range(5)], "640 tokens in one call"),
        ([PrefillPart(0, 0, [5] * 2049)], "room for 2048 tokens, not for 2049"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_llama_cpp_would_abort_on_is_refused(
    pocket: LlamaRunner, parts: list[PrefillPart], complaint: str
) -> None:
    with pytest.raises(RunnerError, match=complaint):
        pocket.prefill(parts)
    pocket.prefill([PrefillPart(0, 0, [5, 6])])  # and nothing has happened


def test_decode_rows_are_checked_too(pocket: LlamaRunner) -> None:
    for rows in (
        [],
        [DecodeRow(3, 0, 5), DecodeRow(1, 0, 5)],
        [DecodeRow(0, 7, 5)],
        [DecodeRow(0, 0, 99_999)],
    ):
        with pytest.raises(RunnerError):
            pocket.decode(rows)


def test_a_full_slot_is_refused_before_it_fails_the_others(pocket: LlamaRunner) -> None:
    for start in range(0, pocket.slot_length, 512):
        pocket.prefill([PrefillPart(3, start, [5] * 512)])
    with pytest.raises(RunnerError, match="slot 3 has room for 0 tokens"):
        pocket.decode([DecodeRow(2, 0, 5), DecodeRow(3, 2048, 5)])
    pocket.decode([DecodeRow(2, 0, 5)])


def test_only_decoded_rows_can_be_sampled(pocket: LlamaRunner) -> None:
    sampler = pocket.create_sampler(GREEDY, [])
    pocket.decode([DecodeRow(0, 0, 5)])
    assert sampler.sample(0) >= 0
    with pytest.raises(RunnerError, match="row 1 was not decoded; there are 1 rows"):
        sampler.sample(1)
    pocket.prefill([PrefillPart(1, 0, [5])])
    with pytest.raises(RunnerError, match="row 0 was not decoded; there are 0 rows"):
        sampler.sample(0)


# Each of these ends the process when llama.cpp is called directly: the checks above are needed.
LETHAL = {
    "more tokens than a batch holds": "batch(runner, 600)",
    "a partial copy in stream mode": "llama.llama_memory_seq_cp(runner._cells._memory, 0, 1, 0, 1)",
}


@pytest.mark.parametrize("mistake", LETHAL, ids=lambda m: m.replace(" ", "_"))
def test_llama_cpp_itself_ends_the_process(mistake: str) -> None:
    program = f"""
import llama_cpp.llama_cpp as llama
from pathlib import Path
from service.engine.batch import Batch
from service.engine.llama import create_runner
from service.settings import EngineSettings

def batch(runner, count):
    batch = Batch(count)
    batch.position[:] = range(count)
    llama.llama_decode(runner._context, batch.close(count, outputs=False))

runner = create_runner(EngineSettings(slots=2), Path({str(POCKET)!r}), "pocket", lambda _: None)
{LETHAL[mistake]}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, timeout=120
    )
    assert done.returncode == -6, done.stderr.decode()
    assert b"GGML_ASSERT" in done.stderr + done.stdout
    assert b"llama_cpp_aborted" in done.stderr + done.stdout


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaRunner]:
    """A model whose chunk of 512 tokens takes a good part of a second."""
    shape = RandomModel(layers=6, embedding=512, feed_forward=4096, heads=8)
    path = shape.write(tmp_path_factory.mktemp("models") / "slow.gguf")
    runner = create_runner(EngineSettings(slots=2, blas="off"), path, "slow", lambda _: None)
    runner.warm_up()
    yield runner
    runner.close()


def seconds_to_read(runner: LlamaRunner) -> float:
    runner.trim(0, 0)
    began = time.perf_counter()
    runner.prefill([PrefillPart(0, 0, [7] * 512)])
    return time.perf_counter() - began


def seconds_to_abort(runner: LlamaRunner, after: float) -> float:
    """From the abort of a prefill, so many seconds after its begin, to its end; infinite where it
    had ended before anybody could abort it."""
    runner.trim(0, 0)
    at: list[float] = []

    def abort() -> None:
        at.append(time.perf_counter())
        runner.abort()

    timer = threading.Timer(after, abort)
    timer.start()
    try:
        runner.prefill([PrefillPart(0, 0, [7] * 512)])
    except DecodeAborted:
        return time.perf_counter() - at[0]
    finally:
        timer.join()
    return math.inf


@pytest.mark.timing
def test_an_abort_ends_a_prefill_within_50_ms_and_work_goes_on(slow: LlamaRunner) -> None:
    whole = min(seconds_to_read(slow) for _ in range(3))
    quick(lambda: seconds_to_abort(slow, whole / 4), max(0.05, whole / 4), tries=10)
    held = slow.resident(0)
    assert held < 512
    slow.prefill([PrefillPart(0, held, [7] * 8)])
    assert slow.resident(0) == held + 8


def test_memory_that_cannot_be_cut_is_kept_whole_or_given_up(tmp_path: Path) -> None:
    path = RandomModel(recurrent=True).write(tmp_path / "recurrent.gguf")
    runner = create_runner(EngineSettings(slots=3), path, "recurrent", lambda _: None)
    try:
        runner.warm_up()
        ids = [5, 6, 7, 8, 9]
        runner.prefill([PrefillPart(0, 0, ids[:-1])])
        assert runner.fork(0, 1, 4) == 4
        assert runner.fork(0, 2, 2) == 0
        both = generate(runner, {0: ids, 1: ids}, steps=10)
        assert both[0] == both[1]
        assert runner.trim(1, 99) == 14
        assert runner.trim(1, 13) == 0
        assert (runner.resident(0), runner.resident(1)) == (14, 0)
    finally:
        runner.close()


def test_reading_in_small_calls_means_the_same(pocket: LlamaRunner) -> None:
    ids = chat(pocket, "What is the capital of France? " * 12)
    expected = alone(pocket, ids)
    pocket.computes_as(Tuning(1, 1, blas_from=200))
    try:
        assert 64 < len(ids) < 200
        assert alone(pocket, ids) == expected
        assert pocket.resident(0) == len(ids) - 1 + len(expected)
    finally:
        pocket.computes_as(Tuning(1, 1))


def test_an_abort_between_calls_is_forgotten(pocket: LlamaRunner) -> None:
    pocket.abort()
    pocket.prefill([PrefillPart(0, 0, [5, 6, 7])])
    assert pocket.resident(0) == 3


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is not a file"),
        (b"", "can't be loaded as a GGUF model"),
        (b"not a model at all" * 100, "can't be loaded as a GGUF model"),
        (POCKET.read_bytes()[:1_000_000], "can't be loaded as a GGUF model"),
    ],
    ids=["missing", "empty", "other", "truncated"],
)
def test_a_bad_file_is_one_sentence_naming_it(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=complaint) as caught:
        create_runner(EngineSettings(), path, "broken", lambda _: None)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_model_that_does_not_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    shape = RandomModel(layers=64, embedding=256, feed_forward=64, context_length=10_000_000)
    path = shape.write(tmp_path / "long.gguf")
    wish = EngineSettings(slots=64, context_length=10_000_000)
    with pytest.raises(ModelFileError, match=r"slots of 10000128 tokens.*would fit"):
        create_runner(wish, path, "long", lambda _: None)


def test_progress_is_reported_and_the_facts_are_there(tmp_path: Path) -> None:
    heard: list[float] = []
    path = RandomModel(vocabulary=600, context_length=1000).write(tmp_path / "small.gguf")
    runner = create_runner(EngineSettings(slots=3, context_length=700), path, "it", heard.append)
    info = runner.info
    runner.close()
    assert heard[-1] == 1.0
    assert (info.name, info.num_slots, info.vocabulary_size) == ("it", 3, 600)
    assert (info.context_length, info.trained_context_length) == (768, 1000)
    assert info.chat_template is None
    assert info == replace(info, created=int(path.stat().st_mtime))
