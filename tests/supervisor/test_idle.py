"""Models that leave memory for lack of requests, serve beside another, and outlast a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.ipc.choice import read_choice
from service.ipc.command import SwitchCommand, WakeCommand
from service.ipc.status import EngineState, ServiceStatus
from tests.supervisor.service import Supervised, conduct, processes_of
from tests.supervisor.test_switch import DONE, FAILED, ask, end_of_switch, model_of, say, serving

ASLEEP, READY = EngineState.ASLEEP, EngineState.READY


def states(status: ServiceStatus) -> list[EngineState]:
    return [engine.state for engine in status.engines]


def ask_beside(service: Supervised, model: dict[str, str]) -> dict[str, Any]:
    path = Path(model["path"])
    return say(service, SwitchCommand(model["name"], path, beside=True).to_line())


def test_a_model_that_nobody_asks_leaves_memory_and_comes_back_when_asked(tmp_path: Path) -> None:
    with serving(tmp_path, unload_after_seconds=0.6) as service:
        asleep = service.wait_for(lambda s: states(s) == [ASLEEP])
        assert (asleep.current, asleep.phase, asleep.num_engine_restarts) == (None, "serving", 0)
        assert asleep.notice is not None
        assert asleep.notice.startswith("old has left memory for lack of requests")
        assert asleep.sleeper is not None
        service.wait_for_event("model_unloaded")
        assert say(service, WakeCommand().to_line()) == {"accepted": 0}
        waking = service.wait_for(lambda s: states(s) == [EngineState.LOADING])
        assert waking.sleeper is not None  # requests that come now wait, and are not refused
        awake = service.wait_for(lambda s: states(s) == [READY])
        assert (model_of(awake), awake.sleeper, awake.notice) == ("old", None, None)
        assert service.end() == 0


def test_one_that_works_stays_and_one_that_is_asked_while_it_leaves_comes_back(
    tmp_path: Path,
) -> None:
    (tmp_path / "busy").mkdir()
    busy = conduct(tmp_path / "busy", "old", drain_seconds=0.5, busy_seconds=1.0)
    with serving(tmp_path, wanted=busy, unload_after_seconds=0.6) as service:
        service.wait_for(lambda s: states(s) == [ASLEEP])
        assert say(service, WakeCommand().to_line()) == {"accepted": 0}  # the old one still leaves
        service.wait_for(lambda s: states(s) == [READY])
        assert service.end() == 0
        assert "engine_crashed" not in service.rest_of_log()


def test_it_stops_cleanly_while_its_model_is_asleep(tmp_path: Path) -> None:
    with serving(tmp_path, unload_after_seconds=0.3) as service:
        service.wait_for(lambda s: states(s) == [ASLEEP])
        children = processes_of(service.process.pid)
        assert service.end() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_guest_serves_beside_the_usual_model_and_takes_over_from_nobody(tmp_path: Path) -> None:
    guest = conduct(tmp_path, "guest")
    with serving(tmp_path) as service:
        assert ask_beside(service, guest) == {"accepted": 1}
        done = end_of_switch(service)
        assert done.switch is not None
        assert (done.switch.phase, model_of(done), done.wanted_model) == (DONE, "old", "old")
        assert [(e.model, e.is_guest, e.is_current) for e in done.engines] == [
            ("old", False, True),
            ("guest", True, False),
        ]
        assert ask_beside(service, guest) == {"accepted": 2}  # it is there: no work
        again = end_of_switch(service)
        assert (again.switch and again.switch.phase, len(again.engines)) == (DONE, 2)


def test_a_guest_without_room_is_one_sentence_and_moves_nobody(tmp_path: Path) -> None:
    guest = conduct(tmp_path, "guest", weigh={"fits": False, "fits_alone": True, "reason": "-"})
    with serving(tmp_path) as service:
        ask_beside(service, guest)
        failed = end_of_switch(service)
        assert failed.switch is not None
        assert (failed.switch.phase, model_of(failed)) == (FAILED, "old")
        assert failed.switch.reason == (
            "There is no memory for guest beside old; for everybody it can take over, which takes "
            "an access token with the scope models:switch. old goes on answering."
        )


def test_a_guest_that_nobody_asks_any_more_makes_room(tmp_path: Path) -> None:
    (tmp_path / "busy").mkdir()
    old = conduct(tmp_path / "busy", "old", busy_seconds=600)
    with serving(tmp_path, wanted=old, unload_after_seconds=0.8) as service:
        ask_beside(service, conduct(tmp_path, "guest"))
        end_of_switch(service)
        left = service.wait_for(lambda s: [e.model for e in s.engines] == ["old"])
        assert states(left) == [READY]


def test_a_guest_can_take_over_for_everybody(tmp_path: Path) -> None:
    guest = conduct(tmp_path, "guest")
    with serving(tmp_path) as service:
        ask_beside(service, guest)
        end_of_switch(service)
        assert ask(service, guest) == {"accepted": 2}
        service.wait_for(lambda s: model_of(s) == "guest")
        assert service.end() == 0


def test_what_it_was_switched_to_is_kept_for_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "choice.json"
    with serving(tmp_path, choice_file=str(file), configured="old") as service:
        ask(service, conduct(tmp_path, "new"))
        end_of_switch(service)
        choice = read_choice(file, "old")
        assert choice is not None
        assert (choice.name, choice.path) == ("new", str(tmp_path / "new.json"))
        assert read_choice(file, "another") is None  # the settings name another one since
        file.write_text("{")
        assert read_choice(file, "old") is None
