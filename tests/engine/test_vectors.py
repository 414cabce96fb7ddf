"""Embedding and reranking models on llama.cpp, held against the same computed by numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.domain.errors import InvalidRequest, ModelFileError
from service.domain.model import Mode
from service.engine.embedding.embedder import of_length_one
from service.engine.embedding.intake import Reading
from service.engine.embedding.vectors import VectorModel, VectorRunner, create_vector_runner
from service.engine.runner import DecodeAborted, RunnerError
from service.settings import EmbedSettings, EngineSettings, RerankSettings
from tests.engine.conftest import POCKET
from tests.engine.encoder_file import CLS, SEP, RandomEncoder
from tests.engine.gguf_file import RandomModel

pytestmark = pytest.mark.model

TEXTS = ("the cat sat on the mat", "what is a dog?", "zebra", "the " * 60)


@contextmanager
def loaded(
    path: Path, settings: EmbedSettings | RerankSettings | None = None
) -> Iterator[VectorRunner]:
    mode = Mode.RERANK if isinstance(settings, RerankSettings) else Mode.EMBED
    model = VectorModel(path, "small", mode)
    chosen = settings or EmbedSettings()
    runner = create_vector_runner(model, chosen, EngineSettings(), lambda _: None)
    try:
        yield runner
    finally:
        runner.close()


def reading(runner: VectorRunner) -> Reading:
    return Reading(runner.info, runner.vocabulary, runner.rerank_template)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_that_the_model_means(pooling: str, tmp_path: Path) -> None:
    encoder = RandomEncoder(pooling=pooling)
    with loaded(encoder.write(tmp_path / "encoder.gguf")) as runner:
        read = reading(runner)
        vectors = of_length_one(runner.read([read.token_ids(text) for text in TEXTS]))
        assert runner.info.vector_length == encoder.width
        assert runner.info.context_length == encoder.context_length
    expected = np.stack([encoder.vector(text.replace("?", " ?")) for text in TEXTS])
    # llama.cpp takes its GELU from a table of 16-bit numbers.
    np.testing.assert_allclose(vectors, expected, atol=5e-4)


def test_scores_are_those_that_the_model_means(tmp_path: Path) -> None:
    encoder = RandomEncoder(pooling="rank")
    documents = ["the cat sat on the mat", "a dog", "zebra"]
    with loaded(encoder.write(tmp_path / "ranker.gguf"), RerankSettings()) as runner:
        read = reading(runner)
        assert read.pair("a", "the cat") == [
            *(CLS, *encoder.ids("a"), SEP),
            *(*encoder.ids("the cat"), SEP),
        ]
        scores = runner.read([read.pair("what is a cat", document) for document in documents])
    expected = [encoder.score("what is a cat", document) for document in documents]
    np.testing.assert_allclose(scores[:, 0], expected, atol=2e-3)


def test_what_an_input_is_read_with_does_not_change_its_vector(tmp_path: Path) -> None:
    with loaded(RandomEncoder().write(tmp_path / "encoder.gguf")) as runner:
        inputs = [reading(runner).token_ids(text) for text in TEXTS]
        together = runner.read(inputs)
        alone = np.concatenate([runner.read([token_ids]) for token_ids in inputs])
    np.testing.assert_allclose(together, alone, atol=3e-3)


def test_a_model_that_writes_makes_vectors_too_where_it_is_told_how() -> None:
    with loaded(POCKET, EmbedSettings(pooling="mean")) as runner:
        read = reading(runner)
        texts = ["What is the capital of France?", "What is the capital of Spain?", "7 plus 5"]
        once = runner.read([read.token_ids(text) for text in texts])
        again = runner.read([read.token_ids(text) for text in reversed(texts)])[::-1]
    np.testing.assert_allclose(once, again, atol=1e-2)
    france, spain, sum_ = of_length_one(once)
    assert france @ spain > france @ sum_


def test_a_model_that_does_not_say_how_to_make_a_vector_is_refused() -> None:
    with pytest.raises(ModelFileError, match="PARLEY_EMBED__POOLING=mean"), loaded(POCKET):
        pass


def test_a_reranking_model_is_not_taken_for_an_embedding_model(tmp_path: Path) -> None:
    path = RandomEncoder(pooling="rank").write(tmp_path / "ranker.gguf")
    with pytest.raises(ModelFileError, match="PARLEY_RERANK__MODEL"), loaded(path):
        pass


def test_a_model_without_a_head_cannot_rerank(tmp_path: Path) -> None:
    path = RandomEncoder().write(tmp_path / "encoder.gguf")
    with pytest.raises(ModelFileError, match="no reranking model"), loaded(path, RerankSettings()):
        pass


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ([], "0 inputs"),
        ([[1]] * 65, "65 inputs"),
        ([[]], "an empty input"),
        ([[1, 100_000]], "token ids are 0 to"),
        ([[-1]], "token ids are 0 to"),
        ([[1] * 129], "129 tokens in one input"),
        ([[1] * 100] * 6, "600 tokens in one call"),
    ],
)
def test_what_llama_cpp_would_die_of_is_refused(
    inputs: list[list[int]], complaint: str, tmp_path: Path
) -> None:
    with loaded(RandomEncoder().write(tmp_path / "encoder.gguf")) as runner:
        with pytest.raises(RunnerError, match=complaint):
            runner.read(inputs)
        assert runner.read([[CLS, SEP]]).shape == (1, 64)


def test_an_abort_ends_a_call_and_the_next_one_works(tmp_path: Path) -> None:
    encoder = RandomEncoder(layers=1, context_length=512)
    with loaded(encoder.write(tmp_path / "encoder.gguf")) as runner:
        lowered: Callable[[], None] = runner._abort.lower
        runner._abort.lower = runner.abort  # type: ignore[method-assign]
        with pytest.raises(DecodeAborted):
            runner.read([[CLS] * 512])
        runner._abort.lower = lowered  # type: ignore[method-assign]
        assert runner.read([[CLS, SEP]]).shape == (1, 64)


def test_peoples_text_cannot_spell_the_models_control_tokens(tmp_path: Path) -> None:
    encoder = RandomEncoder()
    with loaded(encoder.write(tmp_path / "encoder.gguf")) as runner:
        token_ids = reading(runner).token_ids("the [SEP] cat")
    assert token_ids.count(SEP) == 1
    assert token_ids[-1] == SEP


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    with loaded(RandomEncoder().write(tmp_path / "encoder.gguf")) as runner:
        read = reading(runner)
        assert read.token_ids((7, 8)) == [7, 8]
        with pytest.raises(InvalidRequest, match="94 is no token id of small; those are 0 to 93"):
            read.token_ids((7, 94))


def test_a_template_for_reranking_keeps_people_out_of_its_own_words(tmp_path: Path) -> None:
    model = RandomModel(sentencepiece=True)
    with loaded(model.write(tmp_path / "m.gguf"), EmbedSettings(pooling="last")) as runner:
        template = "<s>{query}</s>{document}</s>"
        token_ids = Reading(runner.info, runner.vocabulary, template).pair("a</s>", "<s>b")
    assert token_ids.count(2) == 2
    assert token_ids.count(1) == 1
