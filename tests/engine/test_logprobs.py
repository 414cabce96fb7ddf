"""How likely the tokens of an answer were, from the row of logits to the worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from service.domain.chat import PromptPiece
from service.domain.sampling import Sampling
from service.engine.llama import LlamaRunner
from service.engine.runner import DecodeRow, PrefillPart
from service.engine.sampling.logprobs import logprob_of
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner, says


def spell(ids: Sequence[int]) -> Sequence[bytes]:
    return [f"<{i}>".encode() for i in ids]


@pytest.mark.parametrize("size", [50, 20_000])
def test_log_probabilities_are_those_of_the_whole_row_at_temperature_one(size: int) -> None:
    logits = np.random.default_rng(1).normal(0, 3, size).astype(np.float32)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    told = logprob_of(logits, 7, 20, spell)
    assert (told.chosen.token_id, told.chosen.text) == (7, b"<7>")
    assert told.chosen.logprob == pytest.approx(np.log(probabilities[7]), abs=1e-4)
    best = np.argsort(-probabilities)[:20]
    assert [c.token_id for c in told.top] == best.tolist()
    assert [c.logprob for c in told.top] == pytest.approx(np.log(probabilities[best]), abs=1e-4)


def test_without_alternatives_there_is_the_token_alone() -> None:
    assert logprob_of(np.zeros(4, np.float32), 2, 0, spell).top == ()


def test_a_token_that_can_not_come_has_a_number_that_json_knows() -> None:
    logits = np.array([0.0, -np.inf], np.float32)
    assert logprob_of(logits, 1, 2, spell).chosen.logprob == -9999.0


def test_every_token_but_the_end_is_told_of_in_order() -> None:
    loop = Loop(FakeRunner(following=says("hello")))
    loop.ask(1, "hi>", logprobs=2)
    loop.finish()
    told = [entry for delta in loop.deltas(1) for entry in delta.logprobs]
    assert b"".join(entry.chosen.text for entry in told) == b"hello"
    assert all(len(entry.top) == 2 for entry in told)


def test_tokens_whose_text_was_held_back_are_told_of_with_it() -> None:
    loop = Loop(FakeRunner(following=says("to stop or STAY")))
    loop.ask(1, "hi>", logprobs=0, stop=("STOP", "stand"))
    loop.finish()
    assert loop.text(1) == "to stop or STAY"
    for delta in loop.deltas(1):
        assert b"".join(entry.chosen.text for entry in delta.logprobs) == delta.text.encode()


def test_tokens_of_a_stop_string_are_not_told_of() -> None:
    loop = Loop(FakeRunner(following=says("to STOP it")))
    loop.ask(1, "hi>", logprobs=0, stop=("STOP",))
    loop.finish()
    told = [entry for delta in loop.deltas(1) for entry in delta.logprobs]
    assert b"".join(entry.chosen.text for entry in told) == b"to "


def test_nobody_who_does_not_ask_is_told() -> None:
    loop = Loop(FakeRunner(following=says("hello")))
    loop.ask(1, "hi>")
    loop.finish()
    assert not any(delta.logprobs for delta in loop.deltas(1))


@pytest.mark.model
def test_options_and_penalties_change_the_choice_but_not_what_is_told(pocket: LlamaRunner) -> None:
    ids = pocket.tokenize((PromptPiece("The capital of France is", trusted=True),))
    pocket.prefill([PrefillPart(0, 0, ids[:-1])])
    pocket.decode([DecodeRow(0, len(ids) - 1, ids[-1])])
    plain = pocket.create_sampler(Sampling(temperature=0), ids).sample(0)
    before = pocket.logprob(0, plain, 5)
    sampling = Sampling(temperature=0, logit_bias={plain: -100}, repeat_penalty=2.0)
    other = pocket.create_sampler(sampling, ids).sample(0)
    assert other != plain
    assert pocket.logprob(0, plain, 5) == before
    assert before.chosen == before.top[0]
    assert pocket.logprob(0, other, 5).chosen.logprob < before.chosen.logprob
