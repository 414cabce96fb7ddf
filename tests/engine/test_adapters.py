"""A LoRA file is a part of the model: it changes what is written, and whose state fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.domain.errors import ModelFileError
from service.domain.sampling import Sampling
from service.engine.adapters import LoraFile, to_lora_file
from service.engine.llama import LlamaRunner, create_runner
from service.engine.runner import DecodeRow, PrefillPart
from service.models.source import BUILT_IN_DIR, Adapter
from service.settings import EngineSettings
from tests.engine.gguf_file import write_gguf

pytestmark = pytest.mark.model
POCKET = BUILT_IN_DIR / "pocket.gguf"
_STRING, _F32 = 8, 6
RANK, INNER, WIDTH = 4, 768, 256


def lora(path: Path, strength: float, architecture: str = "qwen3", width: int = WIDTH) -> Path:
    """An adapter for Pocket's feed-forward layers, of random numbers."""
    rng = np.random.default_rng(7)
    tensors = {}
    for layer in range(5):
        name = f"blk.{layer}.ffn_down.weight"
        tensors[f"{name}.lora_a"] = rng.standard_normal((RANK, INNER), np.float32)
        rows = rng.standard_normal((width, RANK), np.float32)
        tensors[f"{name}.lora_b"] = rows * np.float32(strength)
    return write_gguf(
        path,
        {
            "general.architecture": (_STRING, architecture),
            "general.type": (_STRING, "adapter"),
            "adapter.type": (_STRING, "lora"),
            "adapter.lora.alpha": (_F32, float(RANK)),
        },
        tensors,
    )


def runner_with(*files: LoraFile) -> LlamaRunner:
    settings = EngineSettings(slots=2, context_length=512)
    return create_runner(settings, POCKET, "pocket", lambda _: None, None, files)


def written(runner: LlamaRunner, count: int = 12) -> list[int]:
    runner.prefill([PrefillPart(0, 0, [1, 300, 301, 302])])
    sampler, token, found = runner.create_sampler(Sampling(temperature=0), []), 303, []
    for position in range(4, 4 + count):
        runner.decode([DecodeRow(0, position, token)])
        found.append(token := sampler.sample(0))
    return found


def test_an_adapter_changes_what_is_written_as_much_as_its_scale_says(tmp_path: Path) -> None:
    path = lora(tmp_path / "lora.gguf", strength=0.5)
    plain = runner_with()
    expected = written(plain)
    adapted, unscaled = runner_with(LoraFile(path)), runner_with(LoraFile(path, 0.0))
    assert written(adapted) != expected
    assert written(unscaled) == expected
    for runner in (plain, adapted, unscaled):
        runner.close()


def test_with_an_adapter_it_is_another_model(tmp_path: Path) -> None:
    path = lora(tmp_path / "lora.gguf", strength=0.5)
    runners = [runner_with(), runner_with(LoraFile(path)), runner_with(LoraFile(path, 0.5))]
    assert len({runner.fingerprint for runner in runners}) == 3
    plain, adapted, _ = (runner.info for runner in runners)
    assert adapted.size_bytes == plain.size_bytes + path.stat().st_size
    assert adapted.created == max(plain.created, int(path.stat().st_mtime))
    for runner in runners:
        runner.close()


def test_what_is_no_adapter_for_the_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    wrong = {
        tmp_path / "nowhere.gguf": "is not a file",
        POCKET: "is not a LoRA adapter for this model",
        lora(tmp_path / "other.gguf", 1.0, "llama"): "is not a LoRA adapter for this model",
        lora(tmp_path / "bent.gguf", 1.0, width=128): "is not a LoRA adapter for this model",
    }
    for path, words in wrong.items():
        with pytest.raises(ModelFileError, match=words) as caught:
            runner_with(LoraFile(path))
        assert str(path) in str(caught.value)


def test_adapters_are_named_on_the_command_line_as_the_registry_has_them(tmp_path: Path) -> None:
    path = tmp_path / "a=b.gguf"
    assert to_lora_file(str(Adapter(path, 0.25))) == LoraFile(path, 0.25)
    with pytest.raises(ValueError, match="could not convert"):
        to_lora_file("lora.gguf")
