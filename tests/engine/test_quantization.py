"""A faster quantisation is named where one was found, and only then."""

from __future__ import annotations

import llama_cpp.llama_cpp as llama
import pytest

from service.engine import library
from service.engine.planning import quantization
from service.engine.planning.loading import LoadedModel, load_weights
from service.engine.planning.probe import Probe
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.gguf_file import RandomModel

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def as_q4_k_m(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("models")
    whole, path = RandomModel().write(folder / "f16.gguf"), folder / "q4_k_m.gguf"
    library.start()
    params = llama.llama_model_quantize_default_params()
    params.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_K_M
    assert llama.llama_model_quantize(bytes(whole), bytes(path), params) == 0
    return load_weights(path, EngineSettings(), lambda _: None)


def test_it_is_measured_on_two_models_that_run(as_q4_k_m: LoadedModel) -> None:
    seen: list[tuple[int, float]] = []

    def time_of(probe: Probe, rows: int, layers: int) -> float:
        seconds = probe.run(rows, 1, layers)
        seen.append((rows, seconds))
        return seconds

    quantization.advice(as_q4_k_m, EngineSettings(), time_of)
    assert {rows for rows, _ in seen} == {1, 64}
    assert all(0 < seconds < 3 for _, seconds in seen)


@pytest.mark.parametrize(
    ("slowdown", "sentence"),
    [
        (1.5, "A Q4_0 file of the same model would write 1.50 times and read 1.50 times as fast"),
        (1.05, ""),
        (0.8, ""),
    ],
)
def test_it_is_named_where_it_is_worth_it(
    as_q4_k_m: LoadedModel, slowdown: float, sentence: str
) -> None:
    known: list[Probe] = []

    def time_of(probe: Probe, _rows: int, _layers: int) -> float:
        if probe not in known:
            known.append(probe)
        return slowdown if probe is known[0] else 1.0

    told = quantization.advice(as_q4_k_m, EngineSettings(), time_of)
    assert told.startswith(sentence)
    assert bool(told) == bool(sentence)


def test_other_quantisations_are_left_alone() -> None:
    library.start()
    model = load_weights(POCKET, EngineSettings(), lambda _: None)

    def time_of(_probe: Probe, _rows: int, _layers: int) -> float:
        raise AssertionError("nothing is to be measured")

    assert quantization.advice(model, EngineSettings(), time_of) == ""
    model.close()
