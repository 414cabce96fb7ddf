"""A real small model goes ahead of a real large one: the same answers, in fewer steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.errors import ModelFileError
from service.domain.sampling import Sampling
from service.engine.draft_model import DraftModel, check_draft
from service.engine.kv.prefix import Prefix
from service.engine.llama import LlamaRunner, create_runner
from service.engine.planning.loading import plan_for
from service.engine.runner import DecodeRow, PrefillPart
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.gguf_copy import with_random_weights
from tests.engine.gguf_file import RandomModel
from tests.engine.test_speculation_pocket import answer

pytestmark = pytest.mark.model

QUESTION = "Tell me a story about a cat and a dog."


def runner_with(draft: Path | None, **settings: Any) -> LlamaRunner:
    wanted = EngineSettings(slots=2, draft_model=str(draft) if draft else None, **settings)
    return create_runner(wanted, POCKET, "pocket", lambda _: None)


@pytest.fixture(scope="module")
def twin() -> Iterator[LlamaRunner]:
    """Pocket goes ahead of itself."""
    runner = runner_with(POCKET)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaRunner]:
    """What goes ahead of Pocket knows its words, and nothing else."""
    path = tmp_path_factory.mktemp("models") / "random.gguf"
    runner = runner_with(with_random_weights(POCKET, path))
    yield runner
    runner.close()


CASES: list[dict[str, Any]] = [
    {"sampling": Sampling(temperature=0.0), "max_tokens": 150},
    {"sampling": Sampling(temperature=0.5, seed=2, top_p=0.9), "max_tokens": 150},
    {"sampling": Sampling(seed=3, repeat_penalty=1.1), "max_tokens": 100},
]


@pytest.mark.parametrize("options", CASES)
def test_an_answer_is_the_same_with_a_model_that_is_always_right(
    pocket: LlamaRunner, twin: LlamaRunner, options: dict[str, Any]
) -> None:
    plain, num_plain, _ = answer(pocket, QUESTION, **options)
    ahead, num_ahead, num_steps = answer(twin, QUESTION, **options)
    assert (ahead, num_ahead) == (plain, num_plain)
    if options["sampling"].temperature == 0:
        assert num_steps < num_plain / 2


@pytest.mark.parametrize("options", CASES)
def test_an_answer_is_the_same_with_a_model_that_is_always_wrong(
    pocket: LlamaRunner, ignorant: LlamaRunner, options: dict[str, Any]
) -> None:
    plain, num_plain, _ = answer(pocket, QUESTION, **options)
    ahead, num_ahead, _ = answer(ignorant, QUESTION, **options)
    assert (ahead, num_ahead) == (plain, num_plain)


def test_a_model_that_is_always_wrong_is_soon_asked_no_more(
    ignorant: LlamaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafter, asked = drafter_of(ignorant), []
    guess = drafter.guess

    def counting(slot: int, token_ids: list[int], length: int) -> list[int]:
        asked.append(length)
        return guess(slot, token_ids, length)

    monkeypatch.setattr(drafter, "guess", counting)
    _, num_tokens, num_steps = answer(ignorant, QUESTION, **CASES[0])
    assert 0 < len(asked) <= 10
    assert num_steps >= num_tokens - 3


def test_it_says_what_the_large_model_says_when_it_is_the_same_one(twin: LlamaRunner) -> None:
    drafter = drafter_of(twin)
    token_ids = [5, 301, 42, 99, 512]
    assert drafter.unread(1, Prefix(np.array(token_ids, np.int32), "me")) == 5
    drafter.read(1, token_ids[:2])
    guesses = drafter.guess(1, token_ids[2:], 6)
    assert len(guesses) == 6
    for _ in range(2):
        twin.trim(1, 0)
        twin.prefill([PrefillPart(1, 0, token_ids[:-1])])
        assert greedy(twin, token_ids, 6) == guesses


def test_it_keeps_what_is_right_of_what_it_has_read(twin: LlamaRunner) -> None:
    drafter = drafter_of(twin)
    first = Prefix(np.array([5, 301, 42, 99], np.int32), "me")
    drafter.unread(0, first)
    drafter.guess(0, first.tokens.tolist(), 4)
    drafter.took(0, 5)
    longer = Prefix(np.array([5, 301, 42, 7, 8], np.int32), "me")
    assert drafter.unread(0, longer) == 2
    assert drafter.unread(0, longer) == 2
    assert drafter.unread(0, Prefix(longer.tokens, "somebody else")) == 5


def test_there_are_no_guesses_beyond_what_it_can_hold(twin: LlamaRunner) -> None:
    drafter = drafter_of(twin)
    cells = twin.slot_length
    full = Prefix(np.full(cells, 7, np.int32), "long")
    assert drafter.unread(0, full) == cells
    nearly = Prefix(full.tokens[: cells - 2], "long")
    assert drafter.unread(0, nearly) == cells - 2
    drafter.read(0, [7] * (cells - 3))
    assert len(drafter.guess(0, [7], 9)) == 3


def drafter_of(runner: LlamaRunner) -> DraftModel:
    assert isinstance(runner.drafter, DraftModel)
    return runner.drafter


def greedy(runner: LlamaRunner, token_ids: list[int], count: int) -> list[int]:
    said: list[int] = []
    for place in range(len(token_ids) - 1, len(token_ids) - 1 + count):
        runner.decode([DecodeRow(1, place, (token_ids + said)[place])])
        said.append(int(runner._row(0).argmax()))
    return said


def test_another_vocabulary_is_refused_in_one_sentence(tmp_path: Path) -> None:
    other = RandomModel().write(tmp_path / "other.gguf")
    with pytest.raises(ModelFileError) as caught:
        runner_with(other)
    message = caught.value.message
    assert message.startswith(f"PARLEY_ENGINE__DRAFT_MODEL: {other} has another vocabulary than ")
    assert "512 tokens instead of 2048" in message or "tokens instead of" in message
    assert message.count("\n") == 0


def test_words_that_differ_are_named(tmp_path: Path) -> None:
    data = POCKET.read_bytes()
    at = data.index(b"<|im_start|>")
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(data[:at] + b"<|im_stArt|>" + data[at + 12 :])
    with pytest.raises(ModelFileError, match=re.escape("'<|im_stArt|>' instead of '<|im_start|>'")):
        check_draft(POCKET, changed)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.gguf is not a file"):
        runner_with(tmp_path / "none.gguf")


def test_one_that_cannot_forget_is_refused(tmp_path: Path) -> None:
    recurrent = RandomModel(recurrent=True)
    path = recurrent.write(tmp_path / "mamba.gguf")
    plain = RandomModel().write(tmp_path / "llama.gguf")
    settings = EngineSettings(slots=1, draft_model=str(path))
    with pytest.raises(ModelFileError, match="can't forget what it guessed wrong"):
        create_runner(settings, plain, "llama", lambda _: None)


def test_its_memory_is_in_the_plan() -> None:
    alone, both = (
        plan_for(POCKET, EngineSettings(slots=2, draft_model=draft))[1].need
        for draft in (None, str(POCKET))
    )
    assert both.weights == 2 * alone.weights
    assert both.conversations == 2 * alone.conversations
    assert both.working == 2 * alone.working
