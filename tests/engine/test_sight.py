"""Pictures through llama.cpp's own projector code, with random weights: noise, but exact noise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.domain.chat import PromptPiece
from service.domain.errors import InvalidRequest
from service.engine.llama import LlamaRunner, create_runner
from service.engine.runner import DecodeRow, PrefillPart, RunnerError
from service.engine.seen import Seen
from service.engine.sight import Sight, find_projector, give_sight
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.projector_file import RandomProjector
from tests.pictures.files import png, png_head

pytestmark = pytest.mark.model
PROJECTOR = RandomProjector(text_width=256)
RED, BLUE = png(), png(30, 20, colour=(0, 0, 250))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its projector beside it."""
    folder = tmp_path_factory.mktemp("seeing")
    shutil.copy(POCKET, folder / "pocket.gguf")
    PROJECTOR.write(folder / "mmproj-random.gguf")
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> Iterator[LlamaRunner]:
    path = folder / "pocket.gguf"
    runner = create_runner(EngineSettings(slots=2), path, "pocket", lambda _: None)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def opened(folder: Path, runner: LlamaRunner) -> Iterator[Sight]:
    sight = give_sight(runner, None, folder / "pocket.gguf")
    assert sight is not None
    yield sight
    sight.close()


@pytest.fixture
def sight(runner: LlamaRunner, opened: Sight) -> Sight:
    for slot in range(runner.num_slots):
        runner.trim(slot, 0)
    return opened


def shown(digest: str) -> PromptPiece:
    return PromptPiece("", trusted=True, picture=digest)


def said(text: str) -> PromptPiece:
    return PromptPiece(text, trusted=True)


def tokens_of(runner: LlamaRunner, sight: Sight, *pictures: bytes) -> tuple[list[int], Seen]:
    """A question about pictures, as token ids and what is seen."""
    pieces = [shown(str(hash(picture))) for picture in pictures]
    prompt = (said("<|im_start|>user\n"), *pieces, said("What?<|im_end|>\n<|im_start|>assistant\n"))
    prompt, rows = sight.look(prompt, pictures)
    token_ids = runner.tokenize(prompt)
    return token_ids, Seen.of(token_ids, rows)


def read(
    runner: LlamaRunner, slot: int, token_ids: list[int], seen: Seen, step: int = 512
) -> dict[int, float]:
    """How likely the likeliest tokens are behind the prompt, which is read in steps of so many
    places at most."""
    at = runner.resident(slot)
    while at < len(token_ids) - 1:
        count, rows = seen.stretch(at, min(step, len(token_ids) - 1 - at))
        part = PrefillPart(slot, at, token_ids[at : at + count], rows=rows)
        runner.prefill([part])
        at += count
    runner.decode([DecodeRow(slot, at, token_ids[-1])])
    best = {each.token_id: each.logprob for each in runner.logprob(0, 0, 20).top}
    runner.trim(slot, at)
    return best


def test_a_projector_beside_the_model_makes_it_see(runner: LlamaRunner, sight: Sight) -> None:
    assert runner.info.sees
    token_ids, seen = tokens_of(runner, sight, RED, BLUE)
    assert len(seen.places) == 2 * PROJECTOR.num_tokens
    assert seen.rows.shape == (2 * PROJECTOR.num_tokens, 256)
    assert all(token_ids[place] < 0 for place in seen.places)


def test_equal_pictures_have_equal_places_and_others_have_none_in_common(
    runner: LlamaRunner, sight: Sight
) -> None:
    first, _ = tokens_of(runner, sight, RED)
    again, _ = tokens_of(runner, sight, RED)
    other, _ = tokens_of(runner, sight, BLUE)
    assert first == again
    assert not {i for i in first if i < 0} & {i for i in other if i < 0}
    assert len({i for i in first if i < 0}) == PROJECTOR.num_tokens


def test_what_is_seen_decides_what_is_said_and_how_it_is_cut_does_not(
    runner: LlamaRunner, sight: Sight
) -> None:
    """In one go, in steps that end within the picture, and on from another's beginning."""
    token_ids, seen = tokens_of(runner, sight, RED, BLUE)
    whole = read(runner, 0, token_ids, seen)
    runner.trim(0, 0)
    assert read(runner, 0, token_ids, seen, step=5) == pytest.approx(whole, abs=0.05)
    runner.fork(0, 1, int(seen.places[PROJECTOR.num_tokens]))
    assert read(runner, 1, token_ids, seen) == pytest.approx(whole, abs=0.05)
    swapped, seen_swapped = tokens_of(runner, sight, BLUE, RED)
    runner.trim(1, 0)
    assert read(runner, 1, swapped, seen_swapped) != pytest.approx(whole, abs=0.05)


def test_rows_that_do_not_fit_their_places_are_refused(runner: LlamaRunner, sight: Sight) -> None:
    rows = np.zeros((3, 256), np.float32)
    with pytest.raises(RunnerError, match="for 2 places"):
        runner.prefill([PrefillPart(0, 0, [-1, -2], rows=rows)])
    with pytest.raises(RunnerError, match="token ids -2 to -1"):
        runner.prefill([PrefillPart(0, 0, [-1, -2])])


@pytest.mark.parametrize("data", [png()[:60], png_head(9, 9), b"hello"])
def test_a_file_that_can_not_be_unpacked_is_refused(sight: Sight, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="its file is broken"):
        sight.look((shown("x"), said("?")), (data,))


def test_a_projector_of_another_model_leaves_it_blind_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "pocket.gguf"
    shutil.copy(POCKET, path)
    wrong = RandomProjector(text_width=128).write(tmp_path / "mmproj.gguf")
    for named in (None, wrong, tmp_path / "none.gguf", path):
        runner = create_runner(EngineSettings(slots=1), path, "pocket", lambda _: None)
        assert give_sight(runner, named, path) is None
        assert not runner.info.sees
        assert runner.notice
        assert (named or wrong).name in runner.notice
        runner.close()


def test_of_several_projectors_beside_a_model_none_is_guessed(tmp_path: Path) -> None:
    for name in ("mmproj-a.gguf", "mmproj-b.gguf"):
        (tmp_path / name).touch()
    assert find_projector(None, tmp_path / "model.gguf") is None
    assert find_projector(tmp_path / "mmproj-a.gguf", tmp_path / "m.gguf") is not None


def test_stretches_are_of_one_kind() -> None:
    seen = Seen.of([5, -3, -4, 6, 7, -3, 8], np.arange(6, dtype=np.float32).reshape(3, 2))
    assert seen.stretch(0, 9) == (1, None)
    count, rows = seen.stretch(1, 9)
    assert (count, rows is not None and rows.tolist()) == (2, [[0, 1], [2, 3]])
    count, rows = seen.stretch(2, 1)
    assert (count, rows is not None and rows.tolist()) == (1, [[2, 3]])
    assert seen.stretch(3, 1) == (1, None)
    assert seen.stretch(3, 9) == (2, None)
    assert seen.stretch(6, 4) == (4, None)
