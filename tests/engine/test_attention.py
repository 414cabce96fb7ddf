"""Fused attention or plain products, from one call to the next, on the real model."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from service.engine import library
from service.engine.llama import LlamaRunner, create_runner
from service.engine.planning import attention
from service.engine.planning.attention import Attention, AttentionSwitch, find_switch
from service.engine.planning.dry_run import bytes_told
from service.engine.planning.tuning import Tuning
from service.engine.runner import DecodeRow, PrefillPart
from service.engine.sampling.candidates import Row
from service.settings import EngineSettings
from tests.engine.conftest import POCKET

pytestmark = pytest.mark.model

BUFFERS = 16 * 1024 * 1024
PLAIN = Tuning(1, 1, plain_from=6)


@pytest.fixture
def choosing(pocket: LlamaRunner) -> Iterator[LlamaRunner]:
    """Pocket, with a choice."""
    pocket.computes_as(PLAIN, BUFFERS)
    yield pocket
    pocket.computes_as(Tuning(1, 1))
    assert fused(pocket)  # as it was found


def ids(count: int) -> list[int]:
    return [100 + 7 * n % 1900 for n in range(count)]


def fill(runner: LlamaRunner, count: int) -> None:
    runner.trim(0, 0)
    for start in range(0, count, 512):
        runner.prefill([PrefillPart(0, start, ids(count)[start : start + 512])])


def after(runner: LlamaRunner, count: int, start: int = 600) -> Row:
    """The logits after the last of `count` tokens behind `start` others."""
    fill(runner, start)
    runner.prefill([PrefillPart(0, start, ids(count), end=True)])
    return runner._row(0).copy()


def fused(runner: LlamaRunner) -> bool:
    return find_switch(runner._context) is not None


def test_a_context_with_fused_attention_has_a_switch(pocket: LlamaRunner) -> None:
    switch = find_switch(pocket._context)
    assert switch is not None
    switch.fuse(False)
    assert find_switch(pocket._context) is None  # it looks like one that was born without
    switch.fuse(True)
    assert find_switch(pocket._context) is not None


def test_a_context_that_is_laid_out_otherwise_has_none(
    pocket: LlamaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_COUNTS_AT", 12)
    assert find_switch(pocket._context) is None


def test_looking_for_the_switch_changes_nothing(pocket: LlamaRunner) -> None:
    before = after(pocket, 20, start=100)
    find_switch(pocket._context)
    assert (after(pocket, 20, start=100) == before).all()


def test_both_attentions_say_the_same_though_not_to_the_last_bit(pocket: LlamaRunner) -> None:
    expected = after(pocket, 24)
    pocket.computes_as(PLAIN, BUFFERS)
    try:
        plain = after(pocket, 24)
    finally:
        pocket.computes_as(Tuning(1, 1))
    assert (plain != expected).any()
    assert np.abs(plain - expected).max() < 0.1 * expected.std()
    assert (after(pocket, 24) == expected).all()


@pytest.mark.parametrize(
    ("calls", "is_plain"),
    [
        ([(600, 24)], True),
        ([(600, 6)], True),
        ([(600, 63)], True),
        ([(600, 5)], False),
        ([(600, 64)], False),
        ([(400, 24)], False),
        ([(600, 24), (700, 24)], True),
        ([(600, 24), (100, 24)], False),
        ([(600, 1)] * 8, False),
    ],
)
def test_plain_products_are_for_a_few_rows_far_into_a_conversation(
    pocket: LlamaRunner, calls: list[tuple[int, int]], is_plain: bool
) -> None:
    flag = ctypes.c_uint8(1)
    Attention(pocket._context, AttentionSwitch(flag), 6, BUFFERS).choose(calls)
    assert flag.value == (not is_plain)


def test_plain_products_never_need_more_memory_than_there_is(pocket: LlamaRunner) -> None:
    flag = ctypes.c_uint8(1)
    choosing = Attention(pocket._context, AttentionSwitch(flag), 6, 100_000)
    choosing.choose([(600, 24)])
    assert flag.value == 1


def test_guesses_are_rows_of_one_conversation(choosing: LlamaRunner) -> None:
    fill(choosing, 600)
    choosing.decode([DecodeRow(0, 600 + n, 100 + n) for n in range(8)])
    assert not fused(choosing)
    choosing.trim(0, 600)
    choosing.decode([DecodeRow(0, 600, 100)])
    assert fused(choosing)


def test_an_attention_that_says_something_else_is_not_used(
    choosing: LlamaRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    rising, falling = np.arange(9, dtype=np.float32), np.arange(9, 0, -1).astype(np.float32)
    choosing._kernels.prove(rising, lambda: falling)
    after(choosing, 24)
    assert fused(choosing)
    assert "plain_attention_unused" in capsys.readouterr().out


def test_the_warm_up_proves_it(choosing: LlamaRunner) -> None:
    choosing.warm_up()
    after(choosing, 24)
    assert not fused(choosing)


def test_no_call_makes_the_buffers_larger() -> None:
    """llama.cpp compares them with what it had planned when it closes a context."""
    with library.overhearing() as lines:
        runner = create_runner(EngineSettings(slots=2), POCKET, "pocket", lambda _: None)
    buffers = bytes_told(lines)[1]
    runner.computes_as(PLAIN, buffers)
    counts = [rows for rows in (6, 12, 24, 48, 63) if is_plain_after(runner, rows)]
    assert counts[0] == 6
    assert counts[-1] > 24
    with library.overhearing() as lines:
        runner.close()
    said = [line for line in lines if "expectation" in line]
    assert said
    assert not [line for line in said if "does not match" in line]


def is_plain_after(runner: LlamaRunner, rows: int) -> bool:
    after(runner, rows, start=runner.slot_length - rows)
    return not fused(runner)
