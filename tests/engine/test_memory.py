"""What a model needs, and what is said when that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ModelFileError
from service.engine.memory import Need, Shape, largest_fit, require_memory

GIB = 2**30

# Qwen2.5 0.5B: llama.cpp reports 384 MiB of KV cache for 8 slots of 4096 tokens.
QWEN = Shape(
    weight_bytes=398 * 2**20,
    num_layers=24,
    kv_width=2 * 2 * 64,
    embedding=896,
    feed_forward=4864,
    vocabulary=151_936,
)
WISH = Need(QWEN, slots=8, cells=4096, rows=512)


def test_the_cache_is_what_llama_cpp_reports() -> None:
    assert WISH.conversations == 384 * 2**20


def test_enough_memory_is_no_matter() -> None:
    require_memory(Path("m.gguf"), WISH, WISH.total)


@pytest.mark.parametrize(
    ("available", "advice"),
    [
        (800 * 2**20, r"5 slots of 4096 tokens would fit \(PARLEY_ENGINE__SLOTS=5"),
        (580 * 2**20, r"1 slot of 3072 tokens would fit .*CONTEXT_LENGTH=3072"),
        (300 * 2**20, r"its weights alone are 398 MiB, so use a smaller model"),
    ],
)
def test_too_little_memory_is_refused_with_what_would_fit(available: int, advice: str) -> None:
    with pytest.raises(ModelFileError, match=f"m.gguf needs 938 MiB.*{advice}") as caught:
        require_memory(Path("m.gguf"), WISH, available)
    assert "\n" not in caught.value.message


@given(available=st.integers(0, 2 * GIB), slots=st.integers(1, 64), cells=st.integers(1, 64))
def test_the_advice_fits_and_nothing_larger_does(available: int, slots: int, cells: int) -> None:
    need = Need(QWEN, slots, cells * 256, 512)
    fit = largest_fit(need, available)
    if fit is None:
        assert need.with_size(1, 256).total > available
        return
    assert need.with_size(*fit).total <= available
    assert fit[0] == slots or need.with_size(fit[0] + 1, fit[1]).total > available
