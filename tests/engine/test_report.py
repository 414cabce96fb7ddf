"""What the engine says about a model, for `parley calibrate` to print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import POCKET
from tests.engine.gguf_file import RandomModel

pytestmark = [pytest.mark.services, pytest.mark.model]


def report(state: Path, path: Path, *options: str) -> dict[str, Any]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    command = [
        sys.executable,
        "-m",
        "service.engine.report",
        "--model-path",
        str(path),
        *options,
    ]
    done = subprocess.run(
        command, capture_output=True, check=True, env=kept | {"PARLEY_STATE_DIR": str(state)}
    )
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_a_tiny_model_is_told_to_be_too_small(tmp_path: Path) -> None:
    facts = report(tmp_path, POCKET)
    assert (facts["event"], facts["found"]) == ("calibrated", True)
    assert facts["reason"] == "the model is too small to gain"
    assert facts["sizes"] == facts["wish"] == "8 slots of 2048 tokens"
    assert "of" in facts["memory"]


def test_what_was_measured_is_shown_afterwards(tmp_path: Path) -> None:
    shape = RandomModel(layers=4, embedding=1024, feed_forward=2048, heads=8)
    path = shape.write(tmp_path / "large.gguf")
    assert report(tmp_path, path, "--show")["found"] is False
    measured = report(tmp_path, path)
    assert measured["table"]
    assert measured["seconds"] < 20
    shown = report(tmp_path, path, "--show")
    assert (shown["table"], shown["tuning"]) == (measured["table"], measured["tuning"])


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    facts = report(tmp_path, tmp_path / "absent.gguf")
    assert facts["event"] == "failed"
    assert facts["reason"] == f"{tmp_path}/absent.gguf is not a file; name a GGUF model file."
