"""One model takes over from another, with a real supervisor over tiny real children."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.ipc.command import SwitchCommand
from service.ipc.status import EngineState, ServiceStatus, SwitchPhase
from tests.supervisor.service import (
    PATIENCE_SECONDS,
    PROGRAMS,
    Supervised,
    conduct,
    processes_of,
    supervised,
)

JUDGE = [sys.executable, str(PROGRAMS / "judge.py")]
DONE, FAILED = SwitchPhase.DONE, SwitchPhase.FAILED


@contextmanager
def serving(tmp_path: Path, **plan: Any) -> Iterator[Supervised]:
    """A supervisor that serves the model `old`."""
    plan = {"wanted": conduct(tmp_path, "old", drain_seconds=0.3), **plan}
    with supervised(tmp_path, weigh=[*JUDGE, "weigh"], trial=[*JUDGE, "trial"], **plan) as service:
        service.wait_for(lambda s: model_of(s) == "old")
        yield service


def model_of(status: ServiceStatus) -> str | None:
    return status.current_engine.model if status.current_engine is not None else None


def ask(service: Supervised, model: dict[str, str], path: str | None = None) -> dict[str, Any]:
    """The supervisor's reply to a command."""
    where = path if path is not None else model["path"]
    command = SwitchCommand(model["name"], Path(where) if where else None, model["name"])
    return say(service, command.to_line())


def say(service: Supervised, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(PATIENCE_SECONDS)
        asker.connect(str(service.runtime / "status.sock"))
        asker.sendall(line)
        with asker.makefile() as answers:
            for answer in answers:
                if "reply" in (facts := json.loads(answer)):
                    return dict(facts["reply"])
    raise AssertionError("no reply")


def end_of_switch(service: Supervised) -> ServiceStatus:
    return service.wait_for(lambda s: s.switch is not None and s.switch.is_over)


def test_the_new_model_is_tried_before_it_takes_over(tmp_path: Path) -> None:
    passed = tmp_path / "passed"
    new = conduct(tmp_path, "new", trial={"wait": str(passed)})
    with serving(tmp_path) as service:
        assert ask(service, new) == {"accepted": 1}
        trying = service.wait_for(lambda s: s.switch is not None and s.switch.phase == "trying")
        assert model_of(trying) == "old"
        assert [e.is_current for e in trying.engines] == [True, False]
        passed.touch()
        done = end_of_switch(service)
        assert done.switch is not None
        assert (model_of(done), done.wanted_model, done.switch.phase) == ("new", "new", DONE)
        assert done.configured_model == "old"
        assert done.names == {"old", "new"}
        assert (done.switch.previous, done.notice, done.stand_in_model) == ("old", None, None)
        service.wait_for(lambda s: [e.state for e in s.engines] == [EngineState.READY])
        assert service.end() == 0


def test_the_old_one_finishes_what_it_has_before_it_goes(tmp_path: Path) -> None:
    old = conduct(tmp_path, "old", drain_seconds=2)
    with serving(tmp_path, wanted=old) as service:
        ask(service, conduct(tmp_path, "new"))
        both = end_of_switch(service)
        draining = service.wait_for(lambda s: s.engines[0].state is EngineState.DRAINING)
        assert [e.model for e in draining.engines] == ["old", "new"]
        assert model_of(both) == model_of(draining) == "new"


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_and_says_why(tmp_path: Path) -> None:
    bad = conduct(tmp_path, "bad", exit_code=2, reason="/x/bad.gguf is not a model.")
    with serving(tmp_path) as service:
        ask(service, bad)
        status = end_of_switch(service)
        assert status.switch is not None
        assert (status.switch.phase, model_of(status)) == (FAILED, "old")
        assert status.switch.reason == "/x/bad.gguf is not a model. old goes on answering."
        assert all(s.current == status.current for s in service.seen if s.switch is not None)


def test_a_model_that_fails_its_golden_prompts_gets_no_request(tmp_path: Path) -> None:
    verdict = {"event": "failed", "reason": "dull failed a golden prompt."}
    with serving(tmp_path) as service:
        ask(service, conduct(tmp_path, "dull", trial=verdict))
        status = end_of_switch(service)
        assert status.switch is not None
        assert status.switch.reason == "dull failed a golden prompt. old goes on answering."
        assert model_of(status) == "old"
        service.wait_for(lambda s: [e.model for e in s.engines] == ["old"])


def test_an_engine_that_dies_during_its_trial_is_not_started_again(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        ask(service, conduct(tmp_path, "frail", trial={"wait": str(tmp_path / "never")}))
        service.wait_for(lambda s: s.switch is not None and s.switch.phase == "trying")
        frail = [
            pid
            for pid in processes_of(service.process.pid)
            if b"frail" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"--model-path")[-1]
            and b"--status-fd" in Path(f"/proc/{pid}/cmdline").read_bytes()
            and b"engine.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(frail[0], signal.SIGSEGV)
        status = end_of_switch(service)
        assert status.switch is not None
        assert "died while the model was being tried" in (status.switch.reason or "")
        assert (model_of(status), status.num_engine_restarts) == ("old", 0)


def test_a_model_that_brings_the_scale_down_is_never_loaded(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        ask(service, conduct(tmp_path, "bomb", weigh={"exit_code": 3}))
        status = end_of_switch(service)
        assert status.switch is not None
        assert "reading it ended with exit code 3" in (status.switch.reason or "")
        assert {e.model for s in service.seen for e in s.engines} == {"old"}


def test_without_room_for_both_the_old_one_goes_first(tmp_path: Path) -> None:
    tight = {"fits": False, "fits_alone": True}
    with serving(tmp_path) as service:
        ask(service, conduct(tmp_path, "large", weigh=tight))
        done = end_of_switch(service)
        assert model_of(done) == "large"
        assert max(len(s.engines) for s in service.seen) == 1
        phases = [s.switch.phase for s in service.seen if s.switch is not None]
        assert list(dict.fromkeys(phases)) == ["weighing", "draining", "loading", "trying", "done"]


def test_what_made_room_comes_back_where_the_new_one_fails(tmp_path: Path) -> None:
    bad = conduct(
        tmp_path, "bad", exit_code=2, reason="No.", weigh={"fits": False, "fits_alone": 1}
    )
    with serving(tmp_path) as service:
        ask(service, bad)
        status = end_of_switch(service)
        assert status.switch is not None
        assert status.switch.reason == "No. old is started again."
        assert model_of(service.wait_for(lambda s: s.current is not None)) == "old"


def test_what_is_too_large_for_the_machine_moves_nobody(tmp_path: Path) -> None:
    verdict = {"fits": False, "fits_alone": False, "reason": "huge needs 1 TiB."}
    with serving(tmp_path) as service:
        ask(service, conduct(tmp_path, "huge", weigh=verdict))
        status = end_of_switch(service)
        assert status.switch is not None
        assert status.switch.reason == "huge needs 1 TiB. old goes on answering."


def test_one_switch_at_a_time(tmp_path: Path) -> None:
    slow, other = conduct(tmp_path, "slow", load_seconds=60), conduct(tmp_path, "other")
    with serving(tmp_path) as service:
        ask(service, slow)
        refused = ask(service, other)
        assert refused["code"] == "conflict"
        assert "The switch to slow is still going on" in refused["refused"]
        assert service.end() == 0


def test_what_is_not_here_is_fetched_first(tmp_path: Path) -> None:
    new = conduct(tmp_path, "new")
    lines = "\n".join(
        ['{"event": "progress", "done": 10, "total": 40}', json.dumps({"event": "done", **new})]
    )
    with serving(tmp_path, download=lines) as service:
        ask(service, new, path="")
        assert model_of(end_of_switch(service)) == "new"
        # Statuses that come at once are told as one, so the share in between may not be seen.
        assert "fetching" in {s.switch.phase for s in service.seen if s.switch}


def test_a_download_that_fails_moves_nobody(tmp_path: Path) -> None:
    lines = '{"event": "failed", "reason": "The hub cannot be reached.", "retryable": true}'
    with serving(tmp_path, download=lines) as service:
        ask(service, conduct(tmp_path, "new"), path="")
        status = end_of_switch(service)
        assert status.switch is not None
        assert status.switch.reason == "The hub cannot be reached. old goes on answering."


def test_the_model_that_answers_already_is_no_work(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        path = str(tmp_path / "old.json")
        assert ask(service, {"name": "old", "path": path}) == {"accepted": 1}
        status = end_of_switch(service)
        assert (len(status.engines), model_of(status)) == (1, "old")


def test_nonsense_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        for line in (b"\n", b"{}\n", b'{"switch": 3}\n', b'{"switch": {"name": "x", "mode": 1}}\n'):
            assert say(service, line)["code"] == "invalid_request"
        assert service.end() == 0


def test_an_engine_that_crashes_is_replaced_by_one_with_the_new_model(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        ask(service, conduct(tmp_path, "new"))
        first = service.wait_for(lambda s: [e.model for e in s.engines] == ["new"])
        engine = next(
            pid
            for pid in processes_of(service.process.pid)
            if b"engine.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(engine, signal.SIGKILL)
        back = service.wait_for(lambda s: s.num_engine_restarts == 1 and s.current is not None)
        assert (model_of(back), back.crashed) == ("new", (first.current,))
