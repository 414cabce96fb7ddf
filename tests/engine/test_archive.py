"""Parked conversations on disk: written, found again, and not trusted blindly."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.domain.chat import PromptPiece
from service.engine.kv.archive import KEEP_SECONDS, Archive, read_salt
from service.engine.kv.cache import Cache, create_cache
from service.engine.kv.parking import Parked
from service.engine.kv.prefix import Prefix
from service.engine.kv.transcripts import Transcript
from service.settings import EngineSettings
from tests.fakes.loop import Loop
from tests.fakes.runner import FakeRunner

MODEL = "this model"
LARGE = 10**7


@contextmanager
def archive_in(
    folder: Path, model: str = MODEL, budget: int = LARGE, now: Callable[[], float] | None = None
) -> Iterator[Archive]:
    archive = Archive(folder, model, budget, now) if now else Archive(folder, model, budget)
    yield archive
    archive.close(10)
    archive.wait()


def parked(first: int = 0, num_tokens: int = 200, size: int = 1000, tag: str = "tag") -> Parked:
    tokens = np.arange(first, first + num_tokens, dtype=np.int32)
    said = Transcript((PromptPiece("hello", trusted=True),), tokens, num_tokens)
    state = np.full(size, first % 256, np.uint8)
    return Parked(Prefix(tokens, tag), state, seconds=10.0, transcript=said)


def prompt(first: int = 0, num_tokens: int = 250, tag: str = "tag") -> Prefix:
    return Prefix(np.arange(first, first + num_tokens, dtype=np.int32), tag)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parked"))


def leave(folder: Path, *all_parked: Parked) -> None:
    with archive_in(folder) as archive:
        for one in all_parked:
            archive.put(one)


def test_what_one_process_parks_the_next_one_finds(tmp_path: Path) -> None:
    leave(tmp_path, parked())
    with archive_in(tmp_path) as archive:
        found = archive.fetch(prompt(), present=0)
        assert found is not None
        assert bytes(found.state) == bytes(parked().state)
        assert (list(found.prefix.tokens), found.seconds, found.tier) == (
            list(range(200)),
            10.0,
            "disk",
        )
        assert archive.fetch(prompt(), present=0) is None
    assert files(tmp_path) == []


def test_what_was_said_is_known_at_once(tmp_path: Path) -> None:
    leave(tmp_path, parked())
    (earlier,) = files(tmp_path)
    os.utime(earlier, (0, earlier.stat().st_mtime - 1))  # clocks of file systems are coarse
    leave(tmp_path, parked(first=5000, tag="other"))
    with archive_in(tmp_path) as archive:
        assert [tag for tag, _ in archive.transcripts()] == ["tag", "other"]


def test_nobody_else_can_read_the_files_or_learn_whose_they_are(tmp_path: Path) -> None:
    loop = Loop(FakeRunner(1, 400, max_prompt_bytes=400), MANY, cache=cache_in(tmp_path))
    loop.runner.during_prefill = lambda: pass_time(loop)
    loop.ask(1, "x" * 200, cache_key="token-of-alice", max_tokens=2)
    loop.finish()
    loop.engine._residency.leave(5)
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600
    assert b"alice" not in file.read_bytes()


@pytest.mark.parametrize("num_bytes", [0, 3, 30, 500, -1])
def test_a_torn_file_is_deleted(tmp_path: Path, num_bytes: int) -> None:
    leave(tmp_path, parked())
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:num_bytes])
    with archive_in(tmp_path) as archive:
        assert archive.fetch(prompt(), present=0) is None
    assert files(tmp_path) == []


@pytest.mark.parametrize("at", [0, 9, 13, 40, 200, -1])
def test_a_changed_file_is_not_used(tmp_path: Path, at: int) -> None:
    leave(tmp_path, parked())
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)
    with archive_in(tmp_path) as archive:
        assert archive.fetch(prompt(), present=0) is None
    assert files(tmp_path) == []


def test_files_of_another_model_are_deleted(tmp_path: Path) -> None:
    leave(tmp_path, parked())
    with archive_in(tmp_path, model="another model") as archive:
        assert archive.fetch(prompt(), present=0) is None
    assert files(tmp_path) == []


def test_strangers_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    leave(tmp_path, parked())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_nobody_came_back_for_in_a_day_is_deleted(tmp_path: Path) -> None:
    leave(tmp_path, parked())
    later = files(tmp_path)[0].stat().st_mtime + KEEP_SECONDS + 1
    with archive_in(tmp_path, now=lambda: later) as archive:
        assert archive.fetch(prompt(), present=0) is None
    assert files(tmp_path) == []


def test_the_budget_holds_and_the_oldest_goes_first(tmp_path: Path) -> None:
    with archive_in(tmp_path, budget=60_000) as archive:
        for number in range(4):
            archive.put(parked(first=1000 * number, size=20_000))
            archive.wait()
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 60_000
        assert archive.fetch(prompt(0), present=0) is None
        assert archive.fetch(prompt(3000), present=0) is not None


def test_an_unfinished_file_of_a_dead_process_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "a.part", tmp_path / "b.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    leave(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_what_is_nearly_there_is_not_fetched(tmp_path: Path) -> None:
    leave(tmp_path, parked())
    with archive_in(tmp_path) as archive:
        assert archive.fetch(prompt(), present=190) is None
        assert archive.fetch(prompt(tag="another tag"), present=0) is None


def test_a_longer_conversation_replaces_its_own_beginning(tmp_path: Path) -> None:
    leave(tmp_path, parked(num_tokens=200), parked(num_tokens=300))
    assert len(files(tmp_path)) == 1


def test_a_full_disk_is_logged_and_survived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parked"
    with archive_in(folder) as archive:
        folder.rmdir()
        archive.put(parked())
        archive.wait()
        folder.mkdir()
        archive.put(parked())
    assert len(files(folder)) == 1
    assert "parked_not_written" in capsys.readouterr().out


def test_the_salt_stays_the_same(tmp_path: Path) -> None:
    assert read_salt(tmp_path) == read_salt(tmp_path)
    assert len(read_salt(tmp_path)) == 32


# --- through the engine ---------------------------------------------------------------------------

MANY = EngineSettings(max_waiting=50, parked_bytes=LARGE)


def cache_in(folder: Path, runner: FakeRunner | None = None) -> Cache:
    return create_cache(runner or FakeRunner(), MANY, folder)


def pass_time(loop: Loop) -> None:
    loop.clock.now += 1.0


def loop_in(folder: Path, **options: str) -> Loop:
    runner = FakeRunner(2, 400, max_prompt_bytes=400, **options)  # type: ignore[arg-type]
    loop = Loop(runner, MANY, cache=create_cache(runner, MANY, folder))
    runner.during_prefill = lambda: pass_time(loop)
    return loop


def test_after_a_restart_a_chat_goes_on_where_it_was(tmp_path: Path) -> None:
    before = loop_in(tmp_path)
    texts = {number: str(number) + "x" * 150 + ">" for number in range(5)}
    for number, text in texts.items():
        before.ask(number, text, max_tokens=4, cache_key=f"user {number}")
        before.finish()
    before.engine._residency.leave(5)
    after = loop_in(tmp_path)
    for number, text in texts.items():
        turn = text + before.text(number)
        after.ask(number, turn + "go on>", max_tokens=4, cache_key=f"user {number}")
        after.finish()
        assert after.done(number).usage.cached_tokens == len(turn) - 1
    after.ask(9, texts[0] + "go on>", max_tokens=4, cache_key="user 1")
    after.finish()
    assert after.done(9).usage.cached_tokens == 0
    after.engine._residency.leave(5)


def test_after_a_change_of_model_everything_is_read_again(tmp_path: Path) -> None:
    before = loop_in(tmp_path)
    before.ask(1, "x" * 150, max_tokens=4)
    before.finish()
    before.engine._residency.leave(5)
    after = loop_in(tmp_path, fingerprint="another")
    after.ask(1, "x" * 160, max_tokens=4)
    after.finish()
    assert after.done(1).usage.cached_tokens == 0
    after.engine._residency.leave(5)
