"""What the supervisor decides, without any process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.ipc.status import DownloadStatus, EngineState
from service.supervisor.children import Child
from service.supervisor.engine import (
    Backoff,
    Engine,
    Seat,
    retry_after_seconds,
    why_give_up,
    why_hung,
)
from service.supervisor.herald import download_sentence, usual_notice
from service.supervisor.plan import Commands, Model, Plan, from_json

MODEL = Model("big", Path("/models/big.gguf"))
SMALL = Model("small", Path("/models/small.gguf"))
PLAN = Plan("0", MODEL, Commands(("engine",), ("http",)), stand_in=SMALL)


def engine(**facts: object) -> Engine:
    child = Child("engine-1", 1, lambda _report: None, lambda _code: None)
    made = Engine(1, "/run/engine-1.sock", child, started=100.0)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def ready_engine(**facts: object) -> Engine:
    return engine(state=EngineState.READY, ready_at=101.0, last_heard=101.0, **facts)


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff()
    pauses = [backoff.pause_after(up_seconds=1) for _ in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_steady_minute_is_forgiven() -> None:
    backoff = Backoff()
    assert [backoff.pause_after(up) for up in (0, 0, 59, 60, 0)] == [0.5, 1, 2, 0.5, 1]


@pytest.mark.parametrize(
    ("heard", "step", "now", "reason"),
    [
        (110.0, 0.0, 111.0, None),
        (110.0, 0.0, 129.0, None),
        (110.0, 0.0, 131.0, "it has said nothing for 21 s"),
        (110.0, 60.0, 111.0, None),
        (110.0, 61.0, 111.0, "one step has taken 61 s"),
    ],
)
def test_an_engine_hangs_when_it_is_silent_or_a_step_never_ends(
    heard: float, step: float, now: float, reason: str | None
) -> None:
    made = ready_engine()
    made.last_heard, made.step_seconds = heard, step
    assert why_hung(made, now, stall_seconds=60) == reason


def test_an_engine_that_loads_may_be_silent() -> None:
    assert why_hung(engine(), now=1000.0, stall_seconds=60) is None


def test_a_first_load_that_is_refused_is_given_up_with_the_engine_s_reason() -> None:
    seat, refused = Seat(MODEL), engine(failure="It is broken.")
    assert why_give_up(seat, refused, 2) == "It is broken."
    assert "/models/big.gguf" in (why_give_up(seat, engine(), 2) or "")


def test_a_crash_while_loading_is_tried_three_times() -> None:
    seat = Seat(MODEL)
    answers = []
    for count in (1, 2, 3):
        seat.num_load_crashes = count
        answers.append(why_give_up(seat, engine(), -6))
    assert answers[:2] == [None, None]
    assert "SIGABRT" in str(answers[2])


def test_a_model_that_has_served_is_never_given_up() -> None:
    seat = Seat(MODEL, has_served=True)
    assert [why_give_up(seat, engine(), code) for code in (2, -9, 1)] == [None] * 3


def test_asking_again_helps_when_the_next_engine_should_be_ready() -> None:
    restarting = Seat(MODEL, load_seconds=4.0, restart_at=102.0)
    assert retry_after_seconds([restarting], now=100.0) == 6
    loading = Seat(MODEL, load_seconds=10.0, engine=engine())
    assert retry_after_seconds([loading], now=103.0) == 7
    assert retry_after_seconds([loading], now=200.0) == 1
    assert retry_after_seconds([], now=100.0) == 5


def test_the_notice_says_what_is_on_its_way_and_who_answers_until_then() -> None:
    standing_in = Seat(SMALL, engine=ready_engine())
    assert usual_notice(PLAN, [standing_in], DownloadStatus("big")) == (
        "big is being fetched; small answers until then."
    )
    assert usual_notice(PLAN, [Seat(MODEL, engine=engine())], None) == "big is being loaded."
    assert usual_notice(PLAN, [Seat(MODEL, engine=ready_engine()), standing_in], None) is None


def test_a_download_is_told_in_megabytes() -> None:
    assert download_sentence(DownloadStatus("big", 12_000_000, 48_000_000)) == (
        "Fetching big: 11 MiB of 46 MiB (25%)"
    )
    assert download_sentence(DownloadStatus("big", 12_000_000)) == "Fetching big: 11 MiB"


def test_a_plan_without_a_command_is_no_plan() -> None:
    with pytest.raises(KeyError):
        from_json(json.dumps({"version": "0", "wanted": {"name": "big"}}))
    with pytest.raises(TypeError):
        from_json(
            json.dumps(
                {"wanted": {"name": "a"}, "commands": {"engine": [], "http": []}, "surprise": 1}
            )
        )


def test_an_address_is_one_that_can_be_opened() -> None:
    commands = Commands((), ())
    assert Plan("0", MODEL, commands, host="::1", port=9).address == "http://[::1]:9"
    assert Plan("0", MODEL, commands, unix_socket=Path("/run/p")).address == "unix:/run/p"
