"""Graphics cards: without one the processor computes and it is told once; with one they are used.

The tests marked `gpu` have to be run on a machine that has one, with a llama.cpp compiled for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import POCKET

PROGRAM = """
import json, sys
from pathlib import Path
from service import log
from service.engine.planning import backends
from service.engine.llama import create_runner
from service.engine.runner import DecodeRow, PrefillPart
from service.settings import EngineSettings, LogSettings

log.configure(LogSettings(format="json"), "engine")
settings = EngineSettings(slots=4, **json.loads(sys.argv[2]))
runner = create_runner(settings, Path(sys.argv[1]), "pocket", lambda _: None)
answers = []
for slot in range(4):
    runner.prefill([PrefillPart(slot, 0, [5, 6, 7 + slot])])
token_ids = [9] * 4
for step in range(16):
    runner.decode([DecodeRow(slot, 3 + step, token_ids[slot]) for slot in range(4)])
    found = [runner._best(row) for row in range(4)]
    best = [int(logits.argmax()) for _, logits in found]
    token_ids = [b if ids is None else int(ids[b]) for b, (ids, _) in zip(best, found)]
    answers.append(token_ids)
print(json.dumps({
    "answers": answers,
    "cards": [c.name for c in backends.graphics_cards()],
    "found_there": [ids is not None for ids, _ in found],
    "pads": runner.pads_batches,
}))
"""


def run(**settings: Any) -> tuple[dict[str, Any], list[str]]:
    """What four slots say with these settings, and the events that were logged."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(POCKET), json.dumps(settings)],
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    told: dict[str, Any] = json.loads(done.stdout)
    return told, [line["event"] for line in lines]


@pytest.mark.model
def test_without_a_graphics_card_the_processor_computes_and_it_is_told_once() -> None:
    told, events = run(gpu_layers=99, gpu_split="row", main_gpu=3)
    if told["cards"]:
        pytest.skip("there is a graphics card")
    plain, silent = run(gpu_layers=0)
    assert events.count("no_graphics_card") == 1
    assert told["answers"] == plain["answers"]
    assert "no_graphics_card" not in silent
    assert told["found_there"] == [False] * 4
    assert not told["pads"]


@pytest.mark.model
def test_what_is_for_cards_can_be_had_without_one_and_says_the_same() -> None:
    plain, _ = run(gpu_layers=0)
    told, _ = run(gpu_layers=0, gpu_sampling="on", gpu_padding="on")
    assert told["answers"] == plain["answers"]
    assert told["found_there"] == [True] * 4
    assert told["pads"]


@pytest.mark.gpu
@pytest.mark.parametrize("padding", ["on", "off"])
@pytest.mark.parametrize("sampling", ["on", "off"])
def test_the_best_tokens_found_on_a_card_are_those_of_whole_rows(
    sampling: str, padding: str
) -> None:
    told, _ = run(gpu_layers=-1, gpu_sampling=sampling, gpu_padding=padding)
    plain, _ = run(gpu_layers=0)
    assert told["cards"], "no graphics card was found: is llama.cpp compiled for it?"
    assert told["found_there"] == [sampling == "on"] * 4
    assert told["answers"] == plain["answers"]


@pytest.mark.gpu
def test_on_a_card_both_are_in_use_unless_told_otherwise() -> None:
    told, _ = run(gpu_layers=-1)
    assert told["cards"]
    assert told["found_there"] == [True] * 4
    assert told["pads"]


@pytest.mark.gpu
@pytest.mark.parametrize("split", ["none", "layer", "row"])
def test_a_card_says_what_the_processor_says(split: str) -> None:
    told, events = run(gpu_layers=-1, gpu_split=split)
    plain, _ = run(gpu_layers=0)
    assert told["cards"], "no graphics card was found: is llama.cpp compiled for it?"
    assert "graphics_card" in events
    assert told["answers"] == plain["answers"]


@pytest.mark.gpu
def test_some_layers_on_the_card_and_some_not_say_the_same() -> None:
    told, _ = run(gpu_layers=2)
    plain, _ = run(gpu_layers=0)
    assert told["cards"]
    assert told["answers"] == plain["answers"]


@pytest.mark.gpu
def test_a_card_that_does_not_exist_is_named() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(gpu_layers=-1, main_gpu=99)
    assert "PARLEY_ENGINE__MAIN_GPU=99 does not exist" in caught.value.stderr
