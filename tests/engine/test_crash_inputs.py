"""Nothing that anybody can send or configure brings an engine down without a word.

Each case is a process of its own (`tests.engine.crashers`): what is under test may end it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.engine.tokenizer import STACK_BYTES
from tests.engine.crashers import LETHAL, LONG_LETTERS, MEGABYTE, SPLITTERS

pytestmark = pytest.mark.model
ROOT = Path(__file__).parents[2]


def run(directory: Path, *case: str) -> subprocess.CompletedProcess[str]:
    name, *rest = case
    command = [sys.executable, "-m", "tests.engine.crashers", name, str(directory), *rest]
    return subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300
    )


def outcome(directory: Path, *case: str) -> dict[str, Any]:
    done = run(directory, *case)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("splitter", "size"),
    [
        # A stack of 8 MiB is not enough for the first size where an expression does the cutting.
        *((splitter, 100_000) for splitter in SPLITTERS),
        ("gpt-4o", MEGABYTE),
        *(pytest.param(s, MEGABYTE, marks=pytest.mark.slow) for s in SPLITTERS if s != "gpt-4o"),
    ],
)
def test_a_megabyte_of_one_letter_is_tokenized(splitter: str, size: int, tmp_path: Path) -> None:
    found = outcome(tmp_path, "long_texts", splitter, str(size))
    assert (len(found["counts"]), found["alive"]) == (found["expected"], True)
    assert found["counts"][: len(LONG_LETTERS)] == [size] * len(LONG_LETTERS)
    assert STACK_BYTES >= 1 << 30


@pytest.mark.parametrize("case", ["long_sentencepiece", "strange_texts"])
def test_text_of_any_kind_is_tokenized(case: str, tmp_path: Path) -> None:
    found = outcome(tmp_path, case)
    assert (len(found["counts"]), found["alive"]) == (found["expected"], True)


def test_every_place_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    found = outcome(tmp_path, "places")
    assert found["alive"]
    assert {name: said for name, said in found["said"].items() if said is None} == {}


def test_parts_of_slots_are_copied_without_what_llama_cpp_has_not(tmp_path: Path) -> None:
    found = outcome(tmp_path, "parts_of_slots")
    assert found == {"held": [20, 7, 1, 0, 20, 12, 0, 20], "alive": True}


def test_states_of_another_shape_or_broken_ones_leave_an_empty_slot(tmp_path: Path) -> None:
    found = outcome(tmp_path, "states")
    assert found["foreign"] == [0, 0, 0, 0]
    assert found["most"] <= 512  # what a damaged one says of itself is bounded by the slot
    assert (found["own"], found["alive"]) == (4, True)


def test_a_file_that_is_no_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    found = outcome(tmp_path, "all_model_files")
    harmless = {"merges of nothing", "end beyond the vocabulary", "template of rubbish"}
    assert {name for name, said in found.items() if said is True} == harmless
    for name, said in found.items():
        if name not in harmless:
            assert str(tmp_path) in said, name
            assert said.endswith("."), name
            assert "\n" not in said, name


@pytest.mark.parametrize("name", LETHAL)
def test_a_file_that_llama_cpp_dies_of_ends_only_the_process_that_loads_it(
    name: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "model_file", name)
    assert done.returncode == -signal.SIGABRT
    assert "llama_cpp_aborted" in done.stdout + done.stderr
