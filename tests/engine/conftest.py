"""A real runner on Pocket, loaded once for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import service.models
from service.engine.llama import LlamaRunner, create_runner
from service.settings import EngineSettings

POCKET = Path(service.models.__file__).parent / "pocket.gguf"


@pytest.fixture(scope="session")
def pocket_runner() -> Iterator[LlamaRunner]:
    runner = create_runner(EngineSettings(slots=8), POCKET, "pocket", lambda _: None)
    runner.warm_up()
    yield runner
    runner.close()


@pytest.fixture
def pocket(pocket_runner: LlamaRunner) -> LlamaRunner:
    """The session's runner with all its slots empty."""
    for slot in range(pocket_runner.num_slots):
        pocket_runner.trim(slot, 0)
    return pocket_runner
