"""The table says what was measured, and the bars say what was wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.batched_bench import Decoded
from benchmarks.load import Measured
from benchmarks.plot import draw
from benchmarks.report import (
    BLAS_SERVER,
    OURS,
    PLAIN,
    PLAIN_SERVER,
    Finding,
    Run,
    to_bars,
    to_table,
)
from benchmarks.shape import Shape

ABOUT = {"date": "2026-01-02 03:04 UTC", "commit": "abc", "processor": "one"}


def measured(streams: int, rate: float, first: float = 0.5, tokens: int = 64) -> Measured:
    return Measured(
        streams=streams,
        tokens=[tokens] * streams,
        prompt_tokens=[128] * streams,
        tokens_per_second=rate / 2,
        decode_tokens_per_second=rate,
        together_seconds=4.0,
        first_token_seconds=[first],
        gap_seconds=[0.02, 0.03],
        client_cpu_share=0.01,
    )


def a_run(tokens: int = 64) -> Run:
    run = Run(Shape(streams=(1, 4, 8), threads=2, max_tokens=64), dict(ABOUT))
    run.limits[PLAIN] = [Decoded(n, 100.0, n * r) for n in (1, 4, 8) for r in (10.0, 20.0, 90.0)]
    run.decoding = [measured(n, n * r * 0.95) for n in (1, 4, 8) for r in (10.0, 20.0, 90.0)]
    run.loads[OURS] = [measured(n, 30.0 * n, 0.4, tokens) for n in (1, 4, 8)]
    run.loads[PLAIN_SERVER] = [measured(n, 20.0 * n, 0.5) for n in (1, 4, 8)]
    run.loads[BLAS_SERVER] = [measured(n, 24.0 * n, 1.2) for n in (1, 4, 8)]
    return run


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    run = a_run()
    run.decoding = [measured(n, n * r) for n in (1, 4, 8) for r in (11.0, 18.0, 45.0)]
    found = run.findings()[:3]  # beside 10, 20 and 90
    assert [finding.samples["by round"] for finding in found] == [[1.1, 0.9, 0.5]] * 3
    assert [finding.value for finding in found] == [0.9] * 3


def test_every_bar_is_judged_in_its_direction() -> None:
    found = {finding.what: finding for finding in a_run().findings()}
    assert not found["decode over HTTP ÷ llama-batched-bench, 8 at once"].met
    assert found["tokens/s ÷ llama-server, 4 at once"].value == pytest.approx(1.5)
    assert not found["tokens/s ÷ llama-server, OpenBLAS, 1 at once"].met  # 1.25 of 1.55
    assert found["tokens/s ÷ llama-server, OpenBLAS, 8 at once"].met
    first = found["first token p50: llama-server, OpenBLAS ÷ Parley, 1 cold at once"]
    assert (first.met, round(first.value, 3)) == (True, 3.0)
    assert not found["first token p50: llama-server ÷ Parley, 8 cold at once"].met


def test_a_missing_token_is_noticed() -> None:
    assert a_run().lost_tokens(OURS) == 0
    run = a_run(tokens=63)
    assert run.lost_tokens(OURS) == 13
    assert "| Parley: **tokens lost** | 13 |  |  |" in to_table(run)


def test_the_table_has_a_column_for_each_number_of_streams() -> None:
    lines = to_table(a_run()).splitlines()
    assert lines[0] == "|  | 1 stream | 4 streams | 8 streams |"
    assert {line.count("|") for line in lines} == {5}
    assert "| llama-batched-bench: decode tokens/s | 20.0 | 80.0 | 160.0 |" in lines
    assert "| Parley: tokens/s with the prompt | 15.0 | 60.0 | 120.0 |" in lines


def test_a_bar_is_told_with_its_direction_and_verdict() -> None:
    lines = to_bars(a_run().findings()).splitlines()
    assert "| tokens/s ÷ llama-server, 1 at once | 1.5 | ≥ 1 | met |" in lines


def test_the_figure_is_drawn_from_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.plot.FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    svg = draw(a_run()).read_text()
    assert svg.lstrip().startswith("<?xml")
    assert "<svg" in svg


def test_what_the_readme_says_is_replaced_between_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    marks = "<!-- latest bars -->\nold\n<!-- end of latest bars -->"
    (tmp_path / "README.md").write_text(f"before\n{marks}\nafter\n")
    report.save_bars(ABOUT, a_run().findings()[:1])
    said = (tmp_path / "README.md").read_text()
    assert said.startswith("before\n<!-- latest bars -->\n- date: 2026-01-02")
    assert said.endswith("<!-- end of latest bars -->\nafter\n")
    assert "old" not in said


def test_scenarios_that_are_measured_one_by_one_share_the_table_of_their_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    marks = "<!-- latest bars -->\n<!-- end of latest bars -->"
    (tmp_path / "README.md").write_text(marks)
    first, again, other = (
        Finding("first", value, 2.0, at_least=True, samples={"a": [value]})
        for value in (1.0, 3.0, 4.0)
    )
    report.save_bars(ABOUT, [first])
    report.save_bars(ABOUT, [replace(other, what="other")])
    report.save_bars(ABOUT, [again])
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if "| ≥ 2" in line]
    assert rows == ["| first | 3 | ≥ 2 | met |", "| other | 4 | ≥ 2 | met |"]
    report.save_bars({**ABOUT, "commit": "def"}, [first])
    assert "other" not in (tmp_path / "README.md").read_text()


def test_a_run_says_how_much_of_its_time_other_virtual_machines_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([(100, 1000), (150, 1200)])
    monkeypatch.setattr(report, "_ticks", lambda: next(ticks))
    assert report.Disturbance().share == 0.25


def test_the_system_tells_of_more_time_than_others_took() -> None:
    stolen, all_ = report._ticks()
    assert 0 <= stolen < all_
