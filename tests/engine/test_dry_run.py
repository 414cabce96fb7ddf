"""What llama.cpp says it would need, against what it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.domain.errors import ModelFileError
from service.engine import library
from service.engine.planning.dry_run import PROCESS_BYTES, dry_run
from service.engine.planning.memory import Sizes
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.gguf_file import RandomModel

pytestmark = pytest.mark.model

GIB, MIB = 2**30, 2**20


@pytest.fixture(autouse=True)
def _started() -> None:
    library.start()


def test_the_cache_is_counted_to_the_byte() -> None:
    """Pocket: 5 layers of 2 heads of 128 for keys and values each, 16 bits."""
    with dry_run(POCKET, EngineSettings(), GIB) as dry:
        need = dry.need(Sizes(8, 4096))
    notes = 64 * 8 * 4096
    assert need.conversations == 80 * MIB + notes
    assert MIB < need.working < 64 * MIB
    assert need.total == need.weights + need.conversations + need.working + PROCESS_BYTES


def test_memory_that_does_not_grow_with_the_context_is_seen(tmp_path: Path) -> None:
    path = RandomModel(recurrent=True).write(tmp_path / "recurrent.gguf")
    with dry_run(path, EngineSettings(), GIB) as dry:
        short, long = dry.need(Sizes(4, 512)), dry.need(Sizes(4, 4096))
        more = dry.need(Sizes(8, 512))
    assert short.conversations > 0
    assert long.conversations - short.conversations == 64 * 4 * (4096 - 512)
    assert more.conversations == pytest.approx(2 * short.conversations, abs=64 * 1024)


def test_what_is_far_too_large_is_not_even_tried() -> None:
    with dry_run(POCKET, EngineSettings(), GIB) as dry:
        need = dry.need(Sizes(64, 10_000_128))
        exact = dry.need(Sizes(1, 4096)).conversations
    assert need.conversations == pytest.approx(exact / 4096 * 64 * 10_000_128, rel=0.01)


def test_what_is_not_a_model_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "torn.gguf"
    path.write_bytes(POCKET.read_bytes()[:5000])
    with (
        pytest.raises(ModelFileError, match=r"torn.gguf can't be loaded as a GGUF model: .*\."),
        dry_run(path, EngineSettings(), GIB),
    ):
        raise AssertionError("it was read")
