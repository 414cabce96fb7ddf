"""How a model is best computed; measured in a process of its own, for OpenBLAS cannot come back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.engine.planning.calibrate import break_even
from service.engine.planning.probe import pick, race
from tests.engine.conftest import POCKET
from tests.engine.gguf_file import RandomModel

PROGRAM = """
import json, sys, time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from service import log
from service.engine.planning import backends, starting
from service.engine.planning.records import Records
from service.settings import EngineSettings, LogSettings

log.configure(LogSettings(format="json"), "engine")
path = Path(sys.argv[1])
settings = EngineSettings(**json.loads(sys.argv[2]))
records = Records(Path(sys.argv[3]), path)
with ExitStack() as owned:
    start = starting.prepare(settings, path, lambda _: None, records, owned)
    seconds = []
    for _ in range(5):  # a busy machine may hold up one of them
        began = time.perf_counter()
        again = starting.settle(path, settings, start.sizes, records)
        seconds.append(time.perf_counter() - began)
    build_has_blas = (backends.library.directory() / "libggml-blas.so").exists()
    print(json.dumps({"tuning": asdict(start.tuning), "same": again.tuning == start.tuning,
                      "table": [asdict(line) for line in again.table],
                      "again_seconds": min(seconds), "in_use": backends.has_blas(),
                      "build_has_blas": build_has_blas}))
"""


def settle(path: Path, folder: Path, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    """What was decided, and what was logged meanwhile."""
    options = json.dumps({"slots": 2, **settings})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), options, str(folder)],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict, [line["event"] for line in lines]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just large enough to be worth measuring."""
    shape = RandomModel(layers=4, embedding=1024, feed_forward=2048, heads=8)
    return shape.write(tmp_path_factory.mktemp("models") / "large.gguf")


@pytest.mark.model
def test_a_tiny_model_is_not_measured(tmp_path: Path) -> None:
    verdict, said = settle(POCKET, tmp_path)
    assert verdict["tuning"]["decode_threads"] == verdict["tuning"]["prefill_threads"] == 1
    assert (verdict["in_use"], verdict["tuning"]["blas_from"]) == (False, None)
    assert "calibrated" not in said
    assert "weights_copied" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.model
@pytest.mark.parametrize("choice", ["on", "off"])
def test_the_settings_can_force_openblas(choice: str, tmp_path: Path) -> None:
    verdict, _ = settle(POCKET, tmp_path, blas=choice)
    if not verdict["build_has_blas"]:
        pytest.skip("this build has no BLAS")
    assert verdict["in_use"] == (choice == "on")
    assert verdict["tuning"]["blas_from"] == (32 if choice == "on" else None)


@pytest.mark.services
@pytest.mark.model
def test_it_is_measured_once_and_remembered(large: Path, tmp_path: Path) -> None:
    verdict, said = settle(large, tmp_path)
    assert said.count("calibrated") == 1
    assert said.count("weights_copied") == 1
    assert verdict["same"]
    assert verdict["again_seconds"] < 0.1
    assert verdict["in_use"] == (verdict["tuning"]["blas_from"] is not None)
    questions = {line["question"] for line in verdict["table"]}
    turns = "a turn after 64 and after 1024 tokens"
    assert {"writing", "reading", "reading much", turns} <= questions
    for question in questions:
        chosen = [line for line in verdict["table"] if line["question"] == question]
        assert sum(line["chosen"] for line in chosen) <= 1
        assert all(0 < line["seconds_per_token"] < 1 for line in chosen)
    _, said = settle(large, tmp_path)
    assert "calibrated" not in said


@pytest.mark.services
@pytest.mark.model
def test_other_settings_or_a_torn_note_are_measured_anew(large: Path, tmp_path: Path) -> None:
    settle(large, tmp_path, threads=1)
    (note,) = tmp_path.glob("calibration-*.json")
    note.write_text(note.read_text()[:100])
    verdict, said = settle(large, tmp_path, threads=1)
    assert said.count("calibrated") == 1
    assert verdict["tuning"]["decode_threads"] == verdict["tuning"]["prefill_threads"] == 1
    settle(large, tmp_path, threads=1, batch_tokens=128)
    assert len(list(tmp_path.glob("calibration-*.json"))) == 2


@pytest.mark.services
@pytest.mark.model
def test_many_slots_rule_openblas_out(large: Path, tmp_path: Path) -> None:
    verdict, _ = settle(large, tmp_path, slots=32, context_length=256)
    assert not verdict["in_use"]


@pytest.mark.parametrize(
    ("slow", "quick", "short", "tokens"),
    [
        (2.1, 3.0, 1.0, None),  # never: an EPYC with VNNI, Q4_K
        (5.5, 2.97, 1.52, 185),  # measured beside eight other processes
        (5.5, 5.4, 5.3, None),  # only just, and only for the longest
        (5.5, 5.1, 1.5, None),  # less than what comes and goes with the machine's moods
        (5.0, 1.0, 0.05, 32),  # nearly free
        (math.inf, 1.0, 0.5, None),  # could not be measured
    ],
)
def test_blas_pays_from_where_its_cost_per_call_is_earned_back(
    slow: float, quick: float, short: float, tokens: int | None
) -> None:
    assert break_even(512, slow, quick, short) == tokens


def test_a_batch_too_small_for_blas_gains_nothing() -> None:
    assert break_even(32, 1.0, 0.5, 0.5) is None


def test_what_is_usual_stays_unless_it_loses_by_more_than_the_noise() -> None:
    assert pick({1: 0.96, 2: 1.0}, 2, 0.05) == 2
    assert pick({1: 0.94, 2: 1.0}, 2, 0.05) == 1
    assert pick({1: math.inf, 2: math.inf}, 2, 0.05) == 2


def test_trials_take_turns() -> None:
    order: list[str] = []

    def trial(name: str) -> float:
        order.append(name)
        return 1.0

    race({"a": lambda: trial("a"), "b": lambda: trial("b")}, seconds=60)
    assert order[:4] == ["a", "b", "a", "b"]


def times_of(**series: list[float]) -> dict[str, Callable[[], float]]:
    """Trials that take so long each time, and then as long as the last time."""

    def trial(seconds: list[float]) -> float:
        return seconds.pop(0) if len(seconds) > 1 else seconds[0]

    return {name: partial(trial, list(seconds)) for name, seconds in series.items()}


def test_a_machine_that_is_slow_for_a_while_does_not_turn_the_answer() -> None:
    slow_for_a_while = [1.0] * 5 + [2.0] * 6 + [1.0] * 4
    quicker = [0.8 * seconds for seconds in slow_for_a_while]
    quicker[3] = quicker[9] = 5.0  # and now and then something else gets in between
    times = race(times_of(a=slow_for_a_while, b=quicker), seconds=60)
    assert times["b"] / times["a"] == pytest.approx(0.8)


def test_what_is_mostly_given_up_takes_for_ever_and_says_nothing_of_the_others() -> None:
    times = race(times_of(a=[1.0], b=[math.inf, 3.0, math.inf], c=[2.0]), seconds=60)
    assert times == {"a": 1.0, "b": math.inf, "c": 2.0}


def test_every_trial_is_run_at_least_once() -> None:
    assert race({"a": lambda: 1.0, "b": lambda: 2.0}, seconds=0) == {"a": 1.0, "b": 2.0}


@pytest.mark.model
def test_a_calibration_that_comes_to_nothing_is_logged_and_the_model_runs_as_usual(
    large: Path, tmp_path: Path
) -> None:
    program = PROGRAM.replace(
        "with ExitStack()",
        "import service.engine.planning.measuring as measuring\n"
        "measuring.sys.executable = '/bin/false'\nwith ExitStack()",
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(large), '{"slots": 2}', str(tmp_path)],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    assert "Its process ended with exit code 1." in done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["tuning"]["blas_from"] is None
    assert verdict["table"] == []
    assert not list(tmp_path.glob("calibration-*.json"))


@pytest.mark.model
def test_a_calibration_ends_with_whoever_wanted_it(large: Path) -> None:
    wanted = {"path": str(large), "settings": {}, "sizes": {"slots": 2, "cells": 512}}
    command = [sys.executable, "-m", "service.engine.planning.measuring"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps(wanted).encode() + b"\n")
        child.stdin.close()
        assert child.wait(timeout=120) == 1
