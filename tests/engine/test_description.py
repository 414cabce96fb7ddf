"""What is said of a model."""

from __future__ import annotations

import pytest

from service.engine.description import in_words


@pytest.mark.parametrize(
    ("llama_cpps", "num_parameters", "words"),
    [
        ("qwen3 ?B Q8_0", 4_460_000, "qwen3 4.5M Q8_0"),
        ("llama ?B Q4_K - Medium", 2_300_000_000, "llama 2.3B Q4_K - Medium"),
        ("qwen2 1B Q8_0", 494_000_000, "qwen2 1B Q8_0"),
    ],
)
def test_a_model_s_size_is_named(llama_cpps: str, num_parameters: int, words: str) -> None:
    assert in_words(llama_cpps, num_parameters) == words
