"""A GGUF file becomes a loaded model, and a loaded model gets a context to run in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.domain.errors import ModelFileError
from service.engine import library, machine
from service.settings import EngineSettings

_CELL_MULTIPLE = 256  # llama.cpp rounds slots up to this
_MAX_UBATCH = 512


class LoadedModel:
    """The weights and their facts. `close` gives the memory back."""

    def __init__(self, pointer: Any, path: Path) -> None:
        self.pointer = pointer
        self.path = path
        self.vocab = llama.llama_model_get_vocab(pointer)
        self.size_bytes = int(llama.llama_model_size(pointer))
        self.num_parameters = int(llama.llama_model_n_params(pointer))
        self.trained_context_length = int(llama.llama_model_n_ctx_train(pointer))
        self.description = _description(pointer)
        template = llama.llama_model_chat_template(pointer, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None

    def close(self) -> None:
        llama.llama_model_free(self.pointer)


def load_model(
    path: Path, settings: EngineSettings, on_progress: Callable[[float], None]
) -> LoadedModel:
    """Raises `ModelFileError` naming the path and what is wrong with it."""
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; name a GGUF model file.")

    def report(share: float, _user_data: object) -> bool:
        on_progress(share)
        return True  # False would end the load

    progress = llama.llama_progress_callback(report)
    params = llama.llama_model_default_params()
    params.n_gpu_layers = settings.gpu_layers
    params.progress_callback = progress
    library.forget_errors()
    pointer = llama.llama_model_load_from_file(bytes(path), params)
    if not pointer:
        reason = library.last_error() or "llama.cpp gave no reason"
        raise ModelFileError(f"{path} can't be loaded as a GGUF model: {reason}")
    model = LoadedModel(pointer, path)
    if llama.llama_model_has_encoder(pointer) or not llama.llama_model_has_decoder(pointer):
        model.close()
        raise ModelFileError(f"{path} is not a text generation model; name a chat model.")
    return model


def slot_cells(settings: EngineSettings, trained_context_length: int) -> int:
    """Cells of one slot: what is wished for or trained for, rounded up as llama.cpp does."""
    wished = min(settings.context_length, trained_context_length)
    return -(-wished // _CELL_MULTIPLE) * _CELL_MULTIPLE


def context_params(settings: EngineSettings, *, slots: int, cells: int) -> Any:
    """Parameters of a stream-mode context with `slots` slots of `cells` cells."""
    threads = settings.threads or machine.usable_cores()
    params = llama.llama_context_default_params()
    params.n_ctx = slots * cells
    params.n_seq_max = slots
    params.n_batch = max(settings.batch_tokens, slots)
    params.n_ubatch = min(params.n_batch, _MAX_UBATCH)
    params.n_outputs_max = slots  # the default reserves a row of logits per batch token
    params.n_threads = threads
    params.n_threads_batch = threads  # drives every call of more than one token
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.swa_full = True  # a windowed cache could not be trimmed to a shared prefix
    params.kv_unified = False
    params.no_perf = True
    return params


def open_context(model: LoadedModel, settings: EngineSettings) -> Any:
    """Raises `ModelFileError` when there is no memory for it."""
    cells = slot_cells(settings, model.trained_context_length)
    params = context_params(settings, slots=settings.slots, cells=cells)
    library.forget_errors()
    context = llama.llama_init_from_model(model.pointer, params)
    if not context:
        reason = library.last_error() or "llama.cpp gave no reason"
        raise ModelFileError(
            f"{model.path}: no context of {settings.slots} slots of {cells} tokens: {reason} "
            "Fewer slots (PARLEY_ENGINE__SLOTS) or a shorter context "
            "(PARLEY_ENGINE__CONTEXT_LENGTH) need less memory."
        )
    return context


def _description(pointer: Any) -> str:
    buffer = ctypes.create_string_buffer(256)
    llama.llama_model_desc(pointer, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
