"""An engine where memory is short: it takes what fits, and after deaths less."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from service.ipc.messages import Hello
from tests.engine.cgroup import memory_limit
from tests.engine.gguf_file import RandomModel
from tests.engine.process import SECONDS, Engine, running_engine

pytestmark = pytest.mark.model

MIB = 2**20


@pytest.fixture(scope="module")
def thirsty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 slots of 4096 tokens take 256 MiB; the weights take 18."""
    return RandomModel(layers=16).write(tmp_path_factory.mktemp("models") / "thirsty.gguf")


def sizes_of(engine: Engine) -> tuple[int, int]:
    hello = engine.connect().frames[0]
    assert isinstance(hello, Hello)
    return hello.model.num_slots, hello.model.context_length


def test_it_takes_as_many_slots_as_the_cgroup_has_room_for(thirsty: Path, tmp_path: Path) -> None:
    with (
        memory_limit(320 * MIB) as cgroup,
        running_engine(tmp_path, thirsty, inside=cgroup) as engine,
    ):
        ready = engine.next_event("ready")
        slots, context = sizes_of(engine)
        assert 2 <= slots < 8
        assert context == 4096
        assert ready["notice"].startswith(f"thirsty runs with {slots} slots of 4096 tokens instead")
        assert engine.connect().answer(1, "Hi", max_tokens=4)


def test_what_the_operator_fixed_is_refused_with_what_would_fit(
    thirsty: Path, tmp_path: Path
) -> None:
    with (
        memory_limit(320 * MIB) as cgroup,
        running_engine(
            tmp_path,
            thirsty,
            inside=cgroup,
            PARLEY_ENGINE__SLOTS="8",
            PARLEY_ENGINE__CONTEXT_LENGTH="4096",
        ) as engine,
    ):
        reason = engine.next_event("failed")["reason"]
        assert "with 8 slots of 4096 tokens, and" in reason
        assert "slots of 4096 tokens would fit (PARLEY_ENGINE__SLOTS=" in reason
        assert engine.process.wait(SECONDS) == 2


def test_after_two_deaths_it_takes_half_and_says_so(thirsty: Path, tmp_path: Path) -> None:
    with memory_limit(640 * MIB) as cgroup:
        for _ in range(2):
            with running_engine(tmp_path, thirsty, inside=cgroup) as engine:
                assert "degraded" not in engine.next_event("ready")
                assert sizes_of(engine) == (8, 4096)
                engine.process.send_signal(signal.SIGKILL)
            (tmp_path / "engine.sock").unlink(missing_ok=True)
        with running_engine(tmp_path, thirsty, inside=cgroup) as engine:
            told = engine.next_event("ready")["degraded"]
            assert told.startswith("The engine died 2 times in a row before it had served")
            assert told.endswith(
                "it runs with 4 slots of 4096 tokens instead of 8 slots of 4096 tokens."
            )
            assert sizes_of(engine) == (4, 4096)


def test_an_end_on_request_is_no_death(thirsty: Path, tmp_path: Path) -> None:
    with memory_limit(640 * MIB) as cgroup:
        for _ in range(3):
            with running_engine(tmp_path, thirsty, inside=cgroup) as engine:
                assert "degraded" not in engine.next_event("ready")
                engine.process.send_signal(signal.SIGTERM)
                assert engine.process.wait(SECONDS) == 0
            (tmp_path / "engine.sock").unlink(missing_ok=True)
