"""`parley calibrate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli.calibrate import to_lines
from service.cli.main import parley

FACTS: dict[str, Any] = {
    "processor": "A Fine CPU",
    "kernels": "haswell",
    "sizes": "3 slots of 4096 tokens",
    "wish": "8 slots of 4096 tokens",
    "memory": "600 MiB of 700 MiB",
    "found": True,
    "decision": "2 threads for decoding",
    "reason": "",
    "table": [
        {"question": "writing", "option": "threads 2", "seconds_per_token": 0.02, "chosen": True},
        {"question": "writing", "option": "threads 1", "seconds_per_token": 0.03, "chosen": False},
    ],
    "seconds": 9.5,
    "is_disturbed": True,
    "waited": 0.4,
    "advice": "Take another one.",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n == "MODEL_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(parley, ["calibrate", *arguments])


def test_the_table_marks_what_was_chosen() -> None:
    lines = to_lines(FACTS)
    assert "* writing                     threads 2                     20.000" in lines
    assert "  writing                     threads 1                     30.000" in lines
    assert lines[2] == "            (8 slots of 4096 tokens were wished for)"
    assert lines[-1] == "Take another one."
    assert any("40% of the time was spent waiting" in line for line in lines)


def test_what_was_never_measured_is_said_to_be() -> None:
    facts = {name: FACTS[name] for name in ("processor", "kernels", "sizes", "wish", "memory")}
    assert to_lines({**facts, "found": False})[-1].startswith("Nothing has been measured")


@pytest.mark.model
def test_pocket_needs_no_measuring() -> None:
    result = run("--model", "pocket")
    assert result.exit_code == 0, result.output
    assert "8 slots of 2048 tokens take" in result.output
    assert "not measured: the model is too small to gain" in result.output


@pytest.mark.model
def test_everything_comes_as_json_too() -> None:
    facts = json.loads(run("--model", "pocket", "--json", "--show").output)
    assert facts["tuning"]["decode_threads"] == 1


def test_a_model_that_is_not_here_is_one_sentence() -> None:
    result = run("--model", "qwen2.5-0.5b-instruct")
    assert result.exception is not None
    assert "qwen2.5-0.5b-instruct is not on this machine" in str(result.exception)
