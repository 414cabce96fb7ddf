"""An embedding or reranking engine, put together: model, embedder, tokenizer, intake."""

from __future__ import annotations

import threading
from collections.abc import Callable

from service.domain.model import Mode, ModelInfo
from service.engine.embedding.embedder import Embedder
from service.engine.embedding.intake import InputTokenizer, Reading, VectorIntake
from service.engine.embedding.vectors import VectorModel, VectorRunner, create_vector_runner
from service.engine.inbox import Outbox
from service.engine.tokenizer import start_tokenizing
from service.settings import Settings


class VectorWork:
    """A loaded model and what works with it; the engine thread runs `embedder`."""

    def __init__(self, runner: VectorRunner, settings: Settings, outbox: Outbox) -> None:
        chosen = settings.embed if runner.info.mode is Mode.EMBED else settings.rerank
        self._runner = runner
        self.embedder = Embedder(runner, outbox, chosen.batch_tokens)
        reading = Reading(runner.info, runner.vocabulary, runner.rerank_template)
        self._tokenizer = InputTokenizer(reading, self.embedder, outbox)
        self.intake = VectorIntake(self.embedder, self._tokenizer, outbox, chosen.max_waiting)

    @classmethod
    def load(
        cls,
        model: VectorModel,
        settings: Settings,
        outbox: Outbox,
        on_progress: Callable[[float], None],
    ) -> VectorWork:
        """Warmed up and ready. Raises `ModelFileError`."""
        chosen = settings.embed if model.mode is Mode.EMBED else settings.rerank
        runner = create_vector_runner(model, chosen, settings.engine, on_progress)
        runner.warm_up()
        return cls(runner, settings, outbox)

    @property
    def info(self) -> ModelInfo:
        return self._runner.info

    def start(self) -> threading.Thread:
        """Start the tokenizer's thread; called while no other is being started."""
        return start_tokenizing(self._tokenizer.run)

    def stop(self) -> None:
        """Let the tokenizer's thread end when it has done what is queued."""
        self._tokenizer.stop()

    def close(self) -> None:
        """Give the model back, after the embedder's `run`."""
        self._runner.close()
