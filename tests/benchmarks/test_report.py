"""The table says what was measured."""

from __future__ import annotations

from benchmarks.batched_bench import Decoded
from benchmarks.load import Measured
from benchmarks.report import Run, to_table
from benchmarks.shape import Shape


def measured(streams: int, rate: float, tokens: int = 128) -> Measured:
    return Measured(
        streams=streams,
        tokens=[tokens] * streams,
        prompt_tokens=[128] * streams,
        tokens_per_second=rate / 2,
        decode_tokens_per_second=rate,
        together_seconds=4.0,
        first_token_seconds=[0.5],
        gap_seconds=[0.02, 0.03],
        client_cpu_share=0.01,
    )


def a_run(tokens: int = 128) -> Run:
    run = Run(Shape(streams=(1, 8), threads=2), about={})
    for rate in (10.0, 20.0, 90.0):
        run.plain += [Decoded(1, 100.0, rate), Decoded(8, 100.0, 2 * rate)]
        run.blas += [Decoded(1, 100.0, rate), Decoded(8, 100.0, rate)]
        run.parley += [measured(1, rate * 0.95, tokens), measured(8, rate * 1.9, tokens)]
        run.llama_server += [measured(1, rate), measured(8, rate)]
    return run


def test_ratios_are_of_medians() -> None:
    assert a_run().ratios() == {1: 0.95, 8: 0.95}


def test_a_missing_token_is_noticed() -> None:
    assert a_run().lost_tokens() == 0
    assert a_run(tokens=127).lost_tokens() == 27


def test_the_table_has_a_column_for_each_number_of_streams() -> None:
    lines = to_table(a_run()).splitlines()
    assert lines[0] == "|  | 1 stream | 8 streams |"
    assert {line.count("|") for line in lines} == {4}
    assert "| llama-batched-bench: decode tokens/s | 20.0 | 40.0 |" in lines
    assert "| **Parley by batched-bench, decode** | **95.0%** | **95.0%** |" in lines
