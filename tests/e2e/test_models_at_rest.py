"""Models that leave memory, serve one caller, or outlast a restart; with real engines."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.models.registry import BUILT_IN_DIR
from tests.e2e.parley import NUM_ASKED, Parley, create_token, running_parley
from tests.supervisor.service import processes_of
from tests.waiting import until

pytestmark = [pytest.mark.model, pytest.mark.services]

POCKET = BUILT_IN_DIR / "pocket.gguf"


def add_other(folder: Path) -> None:
    models = folder / "state" / "models"
    models.mkdir(parents=True, exist_ok=True)
    shutil.copy(POCKET, models / "other.gguf")
    (models / "registry.toml").write_text('[other]\nfile = "other.gguf"\n')


def authorized(folder: Path, name: str, *scopes: str) -> dict[str, str]:
    """The header of a new access token."""
    secret = create_token(folder, name, *(f"--scope={scope}" for scope in scopes))
    return {"Authorization": f"Bearer {secret}"}


def engines_of(parley: Parley, **options: dict[str, str]) -> list[tuple[str, str]]:
    state = httpx.get(f"{parley.url}/v1/models/state", timeout=60, **options).json()  # type: ignore[arg-type]
    return [(engine["model"], engine["state"]) for engine in state["engines"]]


def first_model(parley: Parley, **options: dict[str, str]) -> str:
    listed = httpx.get(f"{parley.url}/v1/models", timeout=60, **options)  # type: ignore[arg-type]
    return str(listed.json()["data"][0]["id"])


def wait_for(parley: Parley, state: str) -> None:
    """Follow the events until the one engine is in `state`."""
    with httpx.stream("GET", f"{parley.url}/v1/models/events", timeout=60) as events:
        for line in events.iter_lines():
            if f'"state":"{state}"' in line:
                return


def test_a_model_leaves_memory_and_the_next_request_brings_it_back(tmp_path: Path) -> None:
    rest = {
        "PARLEY_MODEL__UNLOAD_AFTER_SECONDS": "4",
        "PARLEY_API__KEEPALIVE_COMMENT_SECONDS": "0.2",
    }
    with running_parley(tmp_path, "--model", "pocket", environment=rest) as parley:
        parley.wait_healthy()
        name = parley.chat("What is the capital of France?").json()["model"]
        wait_for(parley, "asleep")
        # Workers hear of it one after the other.
        until(lambda: all(parley.get("/health").json().get("asleep") for _ in range(NUM_ASKED)))
        assert parley.is_everywhere(200)
        assert "parley_engine_asleep 1.0" in parley.get("/metrics").text
        assert [m["id"] for m in parley.get("/v1/models").json()["data"]] == [name]
        body = {"message": "What is the capital of France?"}
        with httpx.stream("POST", f"{parley.url}/chat/stream", json=body, timeout=60) as reply:
            lines = [line for line in reply.iter_lines() if line]
        assert lines[0].startswith(": ")
        assert '"done":true' in lines[-1]
        assert any('"token"' in line for line in lines)
        until(lambda: engines_of(parley), lambda found: found == [(name, "ready")])
        wait_for(parley, "asleep")
        assert parley.chat("What is the capital of France?").status_code == 200
        assert parley.stop() == 0


def test_a_worker_that_begins_while_the_model_sleeps_knows_it_and_wakes_it(tmp_path: Path) -> None:
    rest = {"PARLEY_MODEL__UNLOAD_AFTER_SECONDS": "1.5", "PARLEY_API__WORKERS": "1"}
    with running_parley(tmp_path, "--model", "pocket", environment=rest) as parley:
        # A slow worker finds the model asleep that nobody has met yet.
        parley.wait_healthy()
        assert named(parley).status_code == 200
        for ask in (named, unnamed):
            wait_for(parley, "asleep")
            (master,) = [pid for pid in processes_of(parley.process.pid) if processes_of(pid)]
            before = processes_of(master)
            os.kill(before[0], signal.SIGKILL)
            listed = retried(lambda: parley.get("/v1/models")).json()["data"]
            assert [model["id"] for model in listed] == ["pocket"]
            assert processes_of(master) != before
            assert parley.get("/health").json()["asleep"] is True
            assert ask(parley).status_code == 200
        assert parley.stop() == 0


def named(parley: Parley) -> httpx.Response:
    return parley.chat("What is the capital of France?", model="pocket")


def unnamed(parley: Parley) -> httpx.Response:
    return httpx.post(f"{parley.url}/chat", json={"message": "Say hello."}, timeout=60)


def retried(work: Callable[[], httpx.Response]) -> httpx.Response:
    """A connection that the killed worker had taken breaks; the next one is the new worker's."""
    for _ in range(20):
        with suppress(httpx.TransportError):
            return work()
    return work()


def test_a_caller_chooses_for_itself_and_an_operator_for_everybody(tmp_path: Path) -> None:
    add_other(tmp_path)
    ann = authorized(tmp_path, "ann", "chat")
    boss = authorized(tmp_path, "boss", "chat", "models:switch")
    with running_parley(tmp_path, "--model", "pocket") as parley:
        parley.wait_healthy()

        def switch(model: str, who: dict[str, str]) -> httpx.Response:
            body = {"model_name": model}
            address = f"{parley.url}/api/v1/chat/switch-model"
            return httpx.post(address, json=body, headers=who, timeout=120)

        assert switch("other", ann).json()["model_name"] == "other"
        both = [("other", "ready"), ("pocket", "ready")]
        until(lambda: sorted(engines_of(parley, headers=ann)), lambda found: found == both)
        for who in (ann, boss):
            reply = httpx.post(
                f"{parley.url}/chat", json={"message": "Say hello."}, headers=who, timeout=60
            )
            assert reply.status_code == 200
        # It is counted when its worker has seen its end, which is after its reader has.
        usage = f"{parley.url}/v1/me/usage"
        until(lambda: '"other"' in httpx.get(usage, headers=ann, timeout=60).text)
        assert switch("other", boss).status_code == 200
        until(lambda: first_model(parley, headers=ann), lambda model: model == "other")


def test_a_switch_outlasts_a_restart_until_the_settings_name_another(tmp_path: Path) -> None:
    add_other(tmp_path)
    (tmp_path / "third.gguf").write_bytes(POCKET.read_bytes())

    def served(*arguments: str) -> str:
        with running_parley(tmp_path, *arguments) as parley:
            parley.wait_healthy()
            if arguments == ("--model", "pocket") and not choice.exists():
                body = {"model": "other", "wait": True}
                httpx.post(f"{parley.url}/v1/models/switch", json=body, timeout=120)
                until(lambda: first_model(parley), lambda model: model == "other")
            return first_model(parley)

    choice = tmp_path / "state" / "model-choice.json"
    assert served("--model", "pocket") == "other"
    assert served("--model", "pocket") == "other"
    assert served("--model", str(tmp_path / "third.gguf")) == "third"
