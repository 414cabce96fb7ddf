"""Closed tabs, other devices and crashes: nothing that was written of an answer is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.parley import Parley, running_parley
from tests.e2e.processes import engine_of
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

ASKED = {"message": "Tell me a story.", "session_id": "tale", "temperature": 0, "background": True}


@contextmanager
def held(parley: Parley) -> Iterator[str]:
    """An answer of which a little is written and kept, by an engine that stands still."""
    engine = engine_of(parley)
    try:
        until(lambda: is_held(parley, engine))
        with httpx.stream("GET", f"{parley.url}/v1/conversations/tale/events", timeout=60) as news:
            written = next(
                told["text"]
                for line in news.iter_lines()
                if line.startswith("data: ") and (told := json.loads(line[6:]))["text"]
            )
        yield written
    finally:
        os.kill(engine, signal.SIGCONT)


def is_held(parley: Parley, engine: int) -> bool:
    """Begin the answer, and stop the engine; whether it had not come to the end by then."""
    with httpx.stream("POST", f"{parley.url}/chat/stream", json=ASKED, timeout=60) as reply:
        for line in reply.iter_lines():
            if '"token"' in line:
                break
        os.kill(engine, signal.SIGSTOP)
    if answer_of(parley)["status"] == "in_progress":
        return True
    os.kill(engine, signal.SIGCONT)
    parley.client.delete(f"{parley.url}/v1/conversations/tale").raise_for_status()
    return False


def answer_of(parley: Parley) -> dict[str, Any]:
    items: list[dict[str, Any]] = parley.get("/v1/conversations/tale/items").json()["data"]
    (answer,) = [item for item in items if item["role"] == "assistant"]
    return answer


def last_answer(parley: Parley) -> tuple[str, str]:
    answer = answer_of(parley)
    return answer["content"][0]["text"], answer["status"]


def follow(parley: Parley) -> None:
    """As another device does: until nothing is being written any more."""
    with httpx.stream("GET", f"{parley.url}/v1/conversations/tale/events", timeout=60) as news:
        for _ in news.iter_lines():
            pass


def test_a_closed_tab_loses_nothing_and_another_device_watches(tmp_path: Path) -> None:
    with running_parley(tmp_path, "--model", "pocket") as parley:
        parley.wait_healthy()
        with held(parley) as written:
            text, status = last_answer(parley)  # which may have grown since
            assert (text.startswith(written), status) == (True, "in_progress")
        follow(parley)
        text, status = last_answer(parley)
        assert status == "completed"
        assert text.startswith(written)
        assert len(text) > len(written)


def test_another_device_stops_it_and_what_there_is_stays(tmp_path: Path) -> None:
    with running_parley(tmp_path, "--model", "pocket") as parley:
        parley.wait_healthy()
        with held(parley) as written:
            stopped = httpx.post(f"{parley.url}/v1/conversations/tale/stop", timeout=60)
            assert stopped.json() == {"stopped": 1}
        follow(parley)
        text, status = last_answer(parley)
        assert text.startswith(written)
        assert status in ("incomplete", "completed")  # it may have been quicker


def test_what_a_crash_left_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    with running_parley(tmp_path, "--model", "pocket") as parley:
        parley.wait_healthy()
        with held(parley) as written:
            parley.process.kill()  # everything below it goes, too
            parley.process.wait()
    with running_parley(tmp_path, "--model", "pocket") as parley:
        parley.wait_healthy()
        kept, status = last_answer(parley)  # which may have grown since
        assert (kept.startswith(written), status) == (True, "incomplete")
        body = {"temperature": 0, "max_tokens": 40}
        address = f"{parley.url}/v1/conversations/tale/continue"
        with httpx.stream("POST", address, json=body, timeout=60) as reply:
            frames = [json.loads(line[6:]) for line in reply.iter_lines() if "data: " in line]
        added = "".join(frame.get("token", "") for frame in frames)
        assert frames[-1]["done"]
        text, status = last_answer(parley)
        assert (text, status) == (kept + added, "completed")
        assert added
