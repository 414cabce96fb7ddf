"""Guessing ahead on Pocket: a real model says the same with and without."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from service.domain.constraint import Constraint, ConstraintKind
from service.domain.sampling import Sampling
from service.engine.llama import LlamaRunner
from service.engine.runner import DecodeRow, PrefillPart, RunnerError
from service.engine.speculation import LENGTHS
from service.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner

pytestmark = pytest.mark.model

POEM = "The cat sat on the mat and the dog ran to the park. " * 4
HOLD = Constraint(ConstraintKind.CHOICE, f'["{POEM}", "Never. {POEM}"]')


class CheapRows(FakeClock):
    """Time in which a call takes as long as any other, so that guessing always pays."""

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def answer(runner: LlamaRunner, question: str, **options: Any) -> tuple[str, int, int]:
    """The text, how many tokens it has, and how many steps they took."""
    for slot in range(runner.num_slots):
        runner.trim(slot, 0)
    loop = Loop(cast(FakeRunner, runner), EngineSettings(), CheapRows())
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    loop.ask(1, prompt, **options)
    loop.finish()
    return loop.text(1), loop.done(1).usage.completion_tokens, loop.engine.gauges.num_steps


CASES: list[dict[str, Any]] = [
    {"sampling": Sampling(temperature=0.0), "max_tokens": 120},
    {"sampling": Sampling(seed=1, repeat_penalty=1.1), "max_tokens": 120},
    {"sampling": Sampling(temperature=0.7, seed=2, top_k=40, top_p=0.9), "max_tokens": 120},
    {"sampling": Sampling(seed=3), "constraint": HOLD},
    {"sampling": Sampling(seed=4), "constraint": HOLD, "stop": ("park. The cat",)},
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("question", ["Count from 1 to 50.", f"Repeat: {POEM}"])
def test_an_answer_is_the_same_with_and_without_guesses(
    pocket: LlamaRunner, question: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, num_tokens, num_steps = answer(pocket, question, **options)
    monkeypatch.setattr(LlamaRunner, "max_draft", 0)
    plain_text, plain_tokens, plain_steps = answer(pocket, question, **options)
    assert (text, num_tokens) == (plain_text, plain_tokens)
    if "constraint" in options:
        assert num_steps < plain_steps / 2


def test_rows_of_one_slot_say_what_they_say_one_by_one(pocket: LlamaRunner) -> None:
    token_ids = [7, 301, 42, 99, 512, 13]
    single = []
    for position, token_id in enumerate(token_ids):
        pocket.decode([DecodeRow(0, position, token_id)])
        single.append(pocket.logprob(0, token_ids[0], 5))
    pocket.trim(0, 0)
    pocket.decode([DecodeRow(0, place, token_id) for place, token_id in enumerate(token_ids)])
    together = [pocket.logprob(row, token_ids[0], 5) for row in range(len(token_ids))]
    for one, other in zip(single, together, strict=True):
        assert [c.token_id for c in one.top] == [c.token_id for c in other.top]
        assert np.isclose(one.chosen.logprob, other.chosen.logprob, atol=0.01)
    assert pocket.resident(0) == len(token_ids)


def test_guesses_that_do_not_follow_one_another_are_refused(pocket: LlamaRunner) -> None:
    pocket.prefill([PrefillPart(0, 0, [1, 2, 3])])
    with pytest.raises(RunnerError, match="a guess for slot 0 at 5; the next place is 4"):
        pocket.decode([DecodeRow(0, 3, 4), DecodeRow(0, 5, 4)])
    with pytest.raises(RunnerError, match="rows in one call; at most"):
        pocket.decode([DecodeRow(0, 3 + i, 4) for i in range(LENGTHS[-1] + 2)])
    assert pocket.resident(0) == 3
