"""OpenBLAS in use or not, and why; each in a process of its own, for it cannot be asked twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.engine.calibrate import break_even
from tests.engine.conftest import POCKET
from tests.engine.gguf_file import RandomModel

pytestmark = pytest.mark.model

PROGRAM = """
import json, sys, time
from pathlib import Path
from service import log
from service.engine import calibrate, library, loading
from service.settings import EngineSettings, LogSettings

log.configure(LogSettings(format="json"), "engine")
library.start()
settings = EngineSettings(**json.loads(sys.argv[2]))
model = loading.load_model(Path(sys.argv[1]), settings, lambda _: None)
began = time.perf_counter()
in_use = calibrate.settle_blas(model, settings)
seconds = time.perf_counter() - began
registered = bool(calibrate._registry(b"BLAS"))
context = loading.open_context(model, settings)
print(json.dumps({"in_use": in_use is not None, "from": in_use, "seconds": seconds,
                  "registered": registered, "context": bool(context)}))
"""


def settle(path: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was decided, and the log line that says why."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), json.dumps({"slots": 2, **settings})],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict, next(line for line in lines if line["event"] == "blas_calibrated")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just large enough to be worth measuring."""
    shape = RandomModel(layers=4, embedding=1024, feed_forward=2048, heads=8)
    return shape.write(tmp_path_factory.mktemp("models") / "large.gguf")


def test_a_tiny_model_is_not_measured() -> None:
    verdict, said = settle(POCKET)
    assert (verdict["in_use"], verdict["registered"]) == (False, False)
    assert said["reason"] == "the model is too small to gain"
    assert verdict["seconds"] < 0.2


@pytest.mark.parametrize("choice", ["on", "off"])
def test_the_settings_can_force_it(choice: str) -> None:
    verdict, said = settle(POCKET, blas=choice)
    if said["reason"] == "this build has no BLAS":
        pytest.skip("this build has no BLAS")
    assert verdict["in_use"] == verdict["registered"] == (choice == "on")
    assert said["reason"] == "forced by the settings"


def test_many_slots_rule_it_out(large: Path) -> None:
    verdict, said = settle(large, slots=32, context_length=256)
    assert not verdict["registered"]
    assert said["reason"] in (
        "decoding 32 slots at once would lose",
        "this build has no BLAS",
    )


def test_it_is_measured_and_the_better_way_is_kept(large: Path) -> None:
    verdict, said = settle(large)
    if said["reason"] == "this build has no BLAS":
        pytest.skip("this build has no BLAS")
    assert said["reason"] == "measured"
    assert said["products"] > 0
    assert verdict["from"] == said["pays_from_tokens"]
    assert verdict["in_use"] == verdict["registered"] == said["in_use"]
    assert verdict["context"]


@pytest.mark.parametrize(
    ("slow", "quick", "short", "tokens"),
    [
        (2.1, 3.0, 1.0, None),  # never: an EPYC with VNNI, Q4_K
        (5.5, 2.97, 1.52, 145),  # measured beside eight other processes
        (5.5, 5.4, 5.3, None),  # only just, and only for the longest
        (5.0, 1.0, 0.05, 32),  # nearly free
    ],
)
def test_blas_pays_from_where_its_cost_per_call_is_earned_back(
    slow: float, quick: float, short: float, tokens: int | None
) -> None:
    assert break_even(512, slow, quick, short) == tokens


def test_a_batch_too_small_for_blas_gains_nothing() -> None:
    assert break_even(32, 1.0, 0.5, 0.5) is None
