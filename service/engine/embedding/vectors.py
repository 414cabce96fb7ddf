"""The model runner of embedding and reranking models: several inputs in, a vector of each out.

One call of llama.cpp reads whole inputs, each as a sequence of its own, and nothing is kept
between calls. What llama.cpp would end the process for is checked here first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from service.domain.errors import ModelFileError
from service.domain.model import Mode, ModelInfo
from service.engine import library
from service.engine.batch import Batch
from service.engine.planning import calibrate
from service.engine.planning.loading import LoadedModel, load_weights, metadata
from service.engine.runner import DecodeAborted, RunnerError
from service.engine.vocabulary import Vocabulary
from service.settings import EmbedSettings, EngineSettings, VectorSettings

Vectors = NDArray[np.float32]

# Inputs of one call. More would only cost: a call of many short ones is full long before.
MAX_SEQUENCES = 64

_NONE, _RANK = llama.LLAMA_POOLING_TYPE_NONE, llama.LLAMA_POOLING_TYPE_RANK
_POOLING = {
    "auto": llama.LLAMA_POOLING_TYPE_UNSPECIFIED,
    "mean": llama.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama.LLAMA_POOLING_TYPE_CLS,
    "last": llama.LLAMA_POOLING_TYPE_LAST,
}
_DONE, _ABORTED = 0, 2

_process = {
    kind: library.function(kind, ctypes.c_int32, ctypes.c_void_p, llama.llama_batch)
    for kind in ("llama_encode", "llama_decode")
}
_vector_of = library.function(
    "llama_get_embeddings_seq", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
)


@dataclass(frozen=True, slots=True)
class VectorModel:
    """Which model is to be loaded, and what for."""

    path: Path
    name: str
    mode: Mode


def create_vector_runner(
    model: VectorModel,
    settings: VectorSettings,
    engine: EngineSettings,
    on_progress: Callable[[float], None],
) -> VectorRunner:
    """Load a model and make its context. Raises `ModelFileError` with one sentence.

    Of `engine`, threads, GPU layers and the longest text count here too.
    """
    library.start()
    with ExitStack() as owned:
        loaded = load_weights(model.path, engine, on_progress)
        owned.callback(loaded.close)
        context = _open_context(loaded, model.mode, settings, engine)
        owned.callback(llama.llama_free, context)
        _check_purpose(loaded, context, model)
        vocabulary = Vocabulary(loaded.vocab, max_prompt_bytes=engine.max_prompt_bytes)
        longest = min(settings.context_length, loaded.trained_context_length)
        runner = VectorRunner(context, vocabulary, _describe(loaded, model, longest), loaded)
        runner.owns(owned.pop_all())
    return runner


class VectorRunner:
    """Owns the model and its context. One thread at a time, but for `vocabulary` and `abort`."""

    def __init__(
        self, context: Any, vocabulary: Vocabulary, info: ModelInfo, model: LoadedModel
    ) -> None:
        self._closing = ExitStack()
        self._context = context
        self._memory = llama.llama_get_memory(context)
        kind = "llama_decode" if self._memory else "llama_encode"
        self._process = _process[kind]
        self._abort = library.AbortFlag(context)
        self.vocabulary = vocabulary
        template = llama.llama_model_chat_template(model.pointer, b"rerank")
        self.rerank_template = template.decode("utf-8", "replace") if template else None
        self.max_batch_tokens = int(llama.llama_n_ubatch(context))
        self.max_sequences = int(llama.llama_n_seq_max(context))
        self._batch = Batch(self.max_batch_tokens)
        self.info = replace(
            info,
            num_slots=self.max_sequences,
            vocabulary_size=vocabulary.size,
            bos_token=vocabulary.spelling("bos"),
            eos_token=vocabulary.spelling("eos"),
            adds_bos=vocabulary.adds_bos,
        )

    def owns(self, resources: ExitStack) -> None:
        """Close these with the runner."""
        self._closing = resources

    def read(self, inputs: Sequence[Sequence[int]]) -> Vectors:
        """The vectors `[len(inputs), vector_length]` of inputs of token ids, as the model has them.

        Raises `DecodeAborted` after `abort`, and `RunnerError` for what does not fit one call.
        """
        self._check(inputs)
        self._abort.lower()
        at = 0
        for number, token_ids in enumerate(inputs):
            stop = at + len(token_ids)
            self._batch.token[at:stop] = token_ids
            self._batch.position[at:stop] = range(len(token_ids))
            self._batch.sequence[at:stop] = number
            at = stop
        try:
            self._run(at)
            return np.stack([self._vector(number) for number in range(len(inputs))])
        finally:
            if self._memory:
                llama.llama_memory_clear(self._memory, False)

    def warm_up(self) -> None:
        """Touch all weights, so that the first request doesn't pay."""
        before, after = self.vocabulary.around()
        self.read([[*before, *after] or [0]])

    def abort(self) -> None:
        """Make a running `read` raise `DecodeAborted` soon. Any thread."""
        self._abort.raise_()

    def close(self) -> None:
        self._closing.close()

    def _check(self, inputs: Sequence[Sequence[int]]) -> None:
        total = sum(len(token_ids) for token_ids in inputs)
        if not 0 < len(inputs) <= self.max_sequences:
            raise RunnerError(f"{len(inputs)} inputs in one call; 1 to {self.max_sequences} fit")
        if total > self.max_batch_tokens:
            raise RunnerError(f"{total} tokens in one call; at most {self.max_batch_tokens} fit")
        for token_ids in inputs:
            if not token_ids:
                raise RunnerError("an empty input")
            if len(token_ids) > self.info.context_length:
                raise RunnerError(f"{len(token_ids)} tokens in one input of the model's context")
            if min(token_ids) < 0 or max(token_ids) >= self.vocabulary.size:
                raise RunnerError(f"token ids are 0 to {self.vocabulary.size - 1}")

    def _run(self, count: int) -> None:
        answer = self._process(self._context, self._batch.close(count, outputs=True))
        if answer == _ABORTED:
            raise DecodeAborted(f"{count} tokens were being read")
        if answer != _DONE:
            raise RunnerError(f"llama.cpp refused {count} tokens ({answer})", fatal=answer < -1)

    def _vector(self, number: int) -> Vectors:
        address = _vector_of(self._context, number)
        if not address:
            raise RunnerError(f"llama.cpp has no vector of input {number}")
        length = self.info.vector_length
        return np.ctypeslib.as_array((ctypes.c_float * length).from_address(address)).copy()


def _open_context(
    model: LoadedModel, mode: Mode, settings: VectorSettings, engine: EngineSettings
) -> Any:
    """Raises `ModelFileError` when llama.cpp makes none."""
    longest = min(settings.context_length, model.trained_context_length)
    room = max(longest, settings.batch_tokens)
    tuning = (calibrate.assumed(model.size_bytes, engine) or calibrate.unmeasured(engine)).tuning
    calibrate.apply_blas(tuning)
    params = llama.llama_context_default_params()
    # An input sees all of itself, so that a call cannot be cut into several: one ubatch.
    params.n_ctx = params.n_batch = params.n_ubatch = room
    params.n_seq_max = min(MAX_SEQUENCES, room)
    params.n_threads = params.n_threads_batch = tuning.prefill_threads
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.kv_unified = True  # inputs of any length share the cells
    params.embeddings = True
    params.pooling_type = _pooling_for(settings)
    params.no_perf = True
    library.forget_errors()
    context = llama.llama_init_from_model(model.pointer, params)
    if not context:
        raise ModelFileError(
            f"{model.path}: no context for inputs of {room} tokens: {library.last_error()} "
            f"A smaller PARLEY_{mode.upper()}__CONTEXT_LENGTH needs less memory."
        )
    return context


def _pooling_for(settings: VectorSettings) -> int:
    return int(_POOLING[settings.pooling] if isinstance(settings, EmbedSettings) else _RANK)


def _check_purpose(loaded: LoadedModel, context: Any, model: VectorModel) -> None:
    """Raises `ModelFileError` for a model that was made for something else."""
    judges = bool(llama.llama_model_cls_label(loaded.pointer, 0))
    architecture = metadata(loaded.pointer, "general.architecture")
    judges |= metadata(loaded.pointer, f"{architecture}.pooling_type") == str(_RANK)
    if model.mode is Mode.RERANK and not judges:
        raise ModelFileError(f"{model.path} has no head to judge documents: no reranking model.")
    if model.mode is Mode.EMBED and judges:
        raise ModelFileError(
            f"{model.path} is a reranking model; name it in PARLEY_RERANK__MODEL instead."
        )
    if model.mode is Mode.EMBED and llama.llama_pooling_type(context) == _NONE:
        raise ModelFileError(
            f"{model.path} does not say how to make one vector of a text, so it is no embedding "
            "model; PARLEY_EMBED__POOLING=mean, cls or last uses it all the same."
        )


def _describe(model: LoadedModel, wanted: VectorModel, longest: int) -> ModelInfo:
    """What is known of the model before it has a context."""
    length_of = llama.llama_model_n_embd_out
    if wanted.mode is Mode.RERANK:
        length_of = llama.llama_model_n_cls_out
    return ModelInfo(
        name=wanted.name,
        description=model.description,
        context_length=longest,
        trained_context_length=model.trained_context_length,
        num_slots=0,
        vocabulary_size=0,
        num_parameters=model.num_parameters,
        size_bytes=model.size_bytes,
        created=int(model.path.stat().st_mtime),
        mode=wanted.mode,
        vector_length=int(length_of(model.pointer)),
    )
