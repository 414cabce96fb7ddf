"""The download as the supervisor runs it: a child process that reports JSON lines."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from service.models.__main__ import StatusLines
from tests.models.hub import LoopbackHub, serving

CONTENT = random.Random(6).randbytes(3_000_000)


def pull(hub: LoopbackHub, state_dir: Path, name: str = "acme/Tiny-GGUF:tiny.gguf") -> Any:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": hub.endpoint,
    }
    models_dir = str(state_dir / "models")
    command = [sys.executable, "-m", "service.models", "--models-dir", models_dir, "pull", name]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def events(stream: IO[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream]


def test_a_pull_reports_progress_and_the_path(tmp_path: Path) -> None:
    with serving(LoopbackHub(CONTENT)) as hub, pull(hub, tmp_path) as child:
        *progress, last = events(child.stdout)
    path = tmp_path / "models" / "acme--Tiny-GGUF" / "tiny.gguf"
    assert (child.returncode, last) == (0, {"event": "done", "path": str(path)})
    assert progress[-1] == {"event": "progress", "done": len(CONTENT), "total": len(CONTENT)}
    assert path.read_bytes() == CONTENT


def test_a_failed_pull_says_why(tmp_path: Path) -> None:
    hub = LoopbackHub(CONTENT, refuse=(404, "EntryNotFound"))
    with serving(hub), pull(hub, tmp_path) as child:
        (last,) = events(child.stdout)
        complaint = child.stderr.read()
    assert child.returncode == 1
    assert (last["event"], last["retryable"]) == ("failed", False)
    assert "does not exist" in last["reason"]
    assert complaint == last["reason"] + "\n"


def test_an_unknown_name_is_a_failure_with_the_nearest_names(tmp_path: Path) -> None:
    with serving(LoopbackHub(CONTENT)) as hub, pull(hub, tmp_path, "qwen2.5-0.5b") as child:
        (last,) = events(child.stdout)
    assert last["event"] == "failed"
    assert "qwen2.5-0.5b-instruct" in last["reason"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_pull_is_continued_by_the_next(stop: signal.Signals, tmp_path: Path) -> None:
    with serving(LoopbackHub(CONTENT, hold_at=2_000_000)) as hub:
        with pull(hub, tmp_path) as child:
            for line in child.stdout:
                if json.loads(line)["done"] > 0:
                    break
            child.send_signal(stop)
        assert child.returncode == -stop
        (part,) = tmp_path.rglob("*.part")
        kept = part.read_bytes()
        assert 0 < len(kept) <= 2_000_000
        assert CONTENT.startswith(kept)
        hub.hold_at = None
        hub.ranges.clear()
        with pull(hub, tmp_path) as child:
            *_, last = events(child.stdout)
    assert last["event"] == "done"
    assert hub.ranges == [f"bytes={len(kept)}-"]
    assert Path(last["path"]).read_bytes() == CONTENT


def test_two_pulls_of_one_model_do_not_write_over_each_other(tmp_path: Path) -> None:
    with serving(LoopbackHub(CONTENT, hold_at=1_000_000)) as hub, pull(hub, tmp_path) as first:
        first.stdout.readline()
        with pull(hub, tmp_path) as second:
            (refusal,) = events(second.stdout)
        hub.release.set()
        *_, last = events(first.stdout)
    assert "already being fetched" in refusal["reason"]
    assert refusal["retryable"]
    assert last["event"] == "done"


def test_progress_is_reported_now_and_then_but_the_end_always() -> None:
    reading, writing = os.pipe()
    times = iter([0.0, 0.1, 0.21, 0.22])
    lines = StatusLines(writing, clock=lambda: next(times))
    for done in (1, 2, 3, 4):
        lines.progress(done, 4)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor, not a path
        assert [json.loads(line)["done"] for line in stream] == [1, 3, 4]
