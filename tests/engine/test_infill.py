"""A gap in a text, as a model sees it that was trained to fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.chat.infill import InfillRequest, to_prompt
from service.engine.llama import create_runner
from service.settings import EngineSettings
from tests.engine.conftest import POCKET
from tests.engine.gguf_file import _CONTROL, _U32, RandomModel

pytestmark = pytest.mark.model

BEFORE, AFTER, MIDDLE = 300, 301, 302


class Coder(RandomModel):
    """A random model that has tokens around gaps."""

    def _metadata(self) -> dict[str, tuple[int, Any]]:
        marks = {"prefix": BEFORE, "suffix": AFTER, "middle": MIDDLE}
        ids = {
            f"tokenizer.ggml.{name}_token_id": (_U32, token_id) for name, token_id in marks.items()
        }
        metadata = super()._metadata()
        _, (_, kinds) = metadata["tokenizer.ggml.token_type"]
        for token_id in marks.values():
            kinds[token_id] = _CONTROL
        return metadata | ids


def test_the_gap_is_marked_by_the_models_own_tokens_and_by_nothing_that_people_write(
    tmp_path: Path,
) -> None:
    path = Coder(context_length=256).write(tmp_path / "coder.gguf")
    runner = create_runner(
        EngineSettings(slots=1, context_length=256), path, "coder", lambda _: None
    )
    try:
        assert runner.info.infill_tokens == ("filler300", "filler301", "filler302")
        request = InfillRequest(before="a", after="cfiller302", begun="b")
        token_ids = runner.tokenize(to_prompt(request, runner.info))
        assert (token_ids[0], token_ids[2], token_ids[-2]) == (BEFORE, AFTER, MIDDLE)
        assert [runner.piece(token_ids[i]) for i in (1, 3, -1)] == [b"a", b"c", b"b"]
        assert token_ids.count(MIDDLE) == 1
    finally:
        runner.close()


def test_a_model_without_such_tokens_says_so() -> None:
    runner = create_runner(EngineSettings(slots=1, context_length=256), POCKET, "p", lambda _: None)
    try:
        assert runner.info.infill_tokens is None
    finally:
        runner.close()
