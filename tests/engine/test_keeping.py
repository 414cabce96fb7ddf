"""Idle conversations are copied to disk, so that an engine that is killed has not lost them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from service.engine.kv import keeping
from service.engine.kv.cache import create_cache
from service.settings import EngineSettings
from tests.engine.process import running_engine
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner

AFTER = 120.0
SETTINGS = EngineSettings(max_waiting=50, parked_bytes=10**7, park_after_seconds=AFTER)


def loop_in(
    folder: Path, settings: EngineSettings = SETTINGS, num_slots: int = 2, **options: object
) -> Loop:
    runner = FakeRunner(num_slots, 400, max_prompt_bytes=400, **options)  # type: ignore[arg-type]
    loop = Loop(runner, settings, cache=create_cache(runner, settings, folder))

    def pass_time() -> None:
        loop.clock.now += 1.0

    runner.during_prefill = pass_time
    return loop


def text(number: int) -> str:
    return str(number) + "x" * 150 + ">"


def talk(loop: Loop, number: int, said: str = "", **options: Any) -> None:
    facts: dict[str, Any] = {"max_tokens": 4, "cache_key": f"user {number}", **options}
    loop.ask(number, said or text(number), **facts)
    loop.finish()


def wait(loop: Loop, seconds: float) -> None:
    """The engine is idle for so long."""
    end = loop.clock.now + seconds
    while (due := loop.engine._keeping.due_in()) is not None and loop.clock.now + due <= end:
        loop.clock.now += max(due, 1.0)
        loop.engine._keeping.step()
        written(loop)
    loop.clock.now = max(loop.clock.now, end)


def written(loop: Loop) -> None:
    archive = loop.engine.cache._archive
    assert archive is not None
    archive.wait()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parked"))


def num_saved(loop: Loop) -> int:
    return sum(call[0] == "save" for call in loop.runner.calls)


def test_what_is_idle_for_long_enough_is_there_after_the_engine_was_killed(tmp_path: Path) -> None:
    before = loop_in(tmp_path)
    for number in (1, 2):
        talk(before, number)
    wait(before, AFTER - 40)
    assert files(tmp_path) == []
    wait(before, 60)
    assert len(files(tmp_path)) == 2
    after = loop_in(tmp_path)  # nobody told the first one to stop
    for number in (1, 2):
        turn = text(number) + before.text(number)
        talk(after, number, turn + "go on>")
        assert after.done(number).usage.cached_tokens == len(turn) - 1


def test_it_stays_where_it_is_and_is_not_fetched_from_disk(tmp_path: Path) -> None:
    loop = loop_in(tmp_path)
    talk(loop, 1)
    wait(loop, AFTER + 10)
    (kept,) = files(tmp_path)
    turn = text(1) + loop.text(1) + "go on>"
    loop.ask(2, turn, max_tokens=4, cache_key="user 1")
    loop.finish()
    assert loop.done(2).usage.cached_tokens == len(text(1) + loop.text(1)) - 1
    assert files(tmp_path) == [kept]
    assert not [call for call in loop.runner.calls if call[0] == "restore"]
    loop.ask(3, turn + loop.text(2) + "and on>", max_tokens=4, cache_key="user 1")
    loop.finish()
    assert files(tmp_path) == [kept]


def test_what_has_not_changed_is_not_copied_again(tmp_path: Path) -> None:
    loop = loop_in(tmp_path)
    talk(loop, 1)
    wait(loop, 10 * AFTER)
    assert num_saved(loop) == 1
    assert loop.engine._keeping.due_in() is None
    loop.engine._residency.leave(5)
    assert num_saved(loop) == 1
    assert len(files(tmp_path)) == 1


def test_the_next_turn_takes_the_place_of_the_last(tmp_path: Path) -> None:
    loop = loop_in(tmp_path)
    talk(loop, 1)
    wait(loop, AFTER + 10)
    (first,) = files(tmp_path)
    talk(loop, 1, text(1) + loop.text(1) + "go on>")
    wait(loop, AFTER + 10)
    (second,) = files(tmp_path)
    assert second != first


def test_what_waits_in_memory_is_copied_too_and_once(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, num_slots=1)
    for number in range(3):
        talk(loop, number)
    wait(loop, AFTER + 30)
    assert len(files(tmp_path)) == 3
    saved = num_saved(loop)
    loop.engine._residency.leave(5)
    assert (num_saved(loop), len(files(tmp_path))) == (saved, 3)


def test_a_copy_in_memory_is_used_before_the_one_on_disk(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, num_slots=1)
    talk(loop, 0)
    talk(loop, 1)
    wait(loop, AFTER + 30)
    kept = files(tmp_path)
    turn = text(0) + loop.text(0)
    for number in (5, 6):
        loop.ask(number, turn + "go on>", max_tokens=4, cache_key="user 0")
        loop.finish()
        assert loop.done(number).usage.cached_tokens >= len(turn) - 1
    assert set(kept) <= set(files(tmp_path))


def test_what_is_on_disk_already_is_not_written_again_from_memory(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, num_slots=1)
    talk(loop, 0)
    wait(loop, AFTER + 10)
    (kept,) = files(tmp_path)
    talk(loop, 1)
    assert len(loop.engine.cache.parking.unkept()) == 0
    wait(loop, AFTER + 10)
    assert kept in files(tmp_path)
    assert len(files(tmp_path)) == 2


def test_a_busy_slot_is_left_alone(tmp_path: Path) -> None:
    loop = loop_in(tmp_path)
    loop.ask(1, text(1), max_tokens=200)
    loop.until(lambda: bool(loop.text(1)))
    loop.clock.now += 10 * AFTER
    assert loop.engine._keeping.due_in() is None
    loop.engine._keeping.step()
    assert num_saved(loop) == 0


def test_little_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_BYTES_PER_SECOND", 100)
    loop = loop_in(tmp_path, num_slots=4)
    for number in range(4):
        talk(loop, number)
    loop.clock.now += AFTER + 1
    for expected in (1, 1):
        loop.clock.now += 1
        loop.engine._keeping.step()
        written(loop)
        assert len(files(tmp_path)) == expected
    loop.clock.now += 100
    loop.engine._keeping.step()
    written(loop)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("change", [{"park_after_seconds": 0.0}, {"archived_bytes": 0}])
def test_it_can_be_turned_off(tmp_path: Path, change: dict[str, float]) -> None:
    loop = loop_in(tmp_path, SETTINGS.model_copy(update=change))
    talk(loop, 1)
    wait(loop, 10 * AFTER)
    assert files(tmp_path) == []
    assert num_saved(loop) == 0
    assert loop.engine._keeping.due_in() is None


def test_an_idle_engine_wakes_up_for_it(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"park_after_seconds": 0.01})
    loop = loop_in(tmp_path, settings)
    talk(loop, 1)
    loop.engine.turn()  # nothing comes; it would wait for ever
    loop.clock.now += 1
    loop.engine.turn()
    written(loop)
    assert len(files(tmp_path)) == 1


@pytest.mark.model
def test_after_kill_9_a_conversation_goes_on_where_it_was(tmp_path: Path) -> None:
    turn = "Tell me a story about a cat and a dog who walk through a dark wood. " * 6
    options: dict[str, Any] = {"PARLEY_ENGINE__PARK_AFTER_SECONDS": "0.2"}
    with running_engine(tmp_path, **options) as engine:
        engine.next_event("ready")
        answer = engine.connect().answer(1, turn, max_tokens=40)
        end = time.monotonic() + 60
        while not files(tmp_path / "state" / "parked"):
            assert time.monotonic() < end, "nothing was written"
            engine.next_event("heartbeat")
        engine.process.kill()
        engine.process.wait()
    with running_engine(tmp_path, **options) as engine:
        engine.next_event("ready")
        client = engine.connect()
        client.answer(1, turn, answer, "And then?", max_tokens=10)
        usage = client.dones[1].usage
        # The answer was cut off, so that the next turn spells it anew.
        assert usage.cached_tokens >= 120
