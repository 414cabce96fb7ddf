"""The GGUF in the package: small, in the right format, and as good as its card says."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from pocket.cases import Case, cases, smoke
from pocket.chat_format import SPECIALS, TEMPLATE
from service.models.gguf import ArrayInfo, check_model_file
from service.models.registry import resolve

SHIPPED = resolve("pocket").local_path(Path())
TOKENIZER = Path("pocket/tokenizer.json")
EVERY = 6  # of each behaviour's cases, for the quick guard; all of them take most of a minute
WANTED = 0.92
QUICK_FLOOR = 0.88  # a sample of 92 cases scatters by about three points around the full figure
SMOKE_WANTED = 0.97  # the rest is named in the model's card


def stratified() -> list[Case]:
    """Every n-th case of each behaviour, and at least one."""
    by_behaviour: dict[str, list[Case]] = defaultdict(list)
    for case in cases():
        by_behaviour[case.behaviour].append(case)
    return [case for part in by_behaviour.values() for case in part[::EVERY]]


def test_the_shipped_file_is_small_and_carries_the_template_of_the_training() -> None:
    header = check_model_file(SHIPPED)
    assert header.file_bytes <= 8_000_000
    assert header.chat_template == TEMPLATE


def test_the_shipped_vocabulary_is_that_of_the_tokenizer_file() -> None:
    vocabulary = json.loads(TOKENIZER.read_text())["model"]["vocab"]
    header = check_model_file(SHIPPED)
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayInfo(type_id=8, length=len(vocabulary))
    assert [vocabulary[special] for special in SPECIALS] == list(range(len(SPECIALS)))


@pytest.mark.model
def test_the_shipped_model_passes_a_sample_of_every_behaviour() -> None:
    from pocket.check import Chat, grade, pass_rate  # noqa: PLC0415 - loads llama.cpp

    asked = stratified()
    assert len(asked) > 80
    assert pass_rate(grade(Chat(SHIPPED), asked, show=3)) >= QUICK_FLOOR


@pytest.mark.slow
@pytest.mark.model
def test_the_shipped_model_passes_its_held_out_checks() -> None:
    from pocket.check import Chat, grade, pass_rate  # noqa: PLC0415 - loads llama.cpp

    assert pass_rate(grade(Chat(SHIPPED), cases(), show=2)) >= WANTED


@pytest.mark.model
def test_the_shipped_model_answers_what_the_tests_of_the_server_ask() -> None:
    from pocket.check import Chat, grade  # noqa: PLC0415 - loads llama.cpp

    results = grade(Chat(SHIPPED), smoke(), show=9)
    assert sum(results["smoke"]) >= SMOKE_WANTED * len(results["smoke"])
