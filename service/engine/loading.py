"""A GGUF file becomes a loaded model, and a loaded model gets a context to run in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.domain.errors import ModelFileError
from service.engine import library, machine
from service.engine.memory import CELL_MULTIPLE, Need, Shape, require_memory
from service.settings import EngineSettings

_MAX_UBATCH = 512

# With less weight than this a whole step takes a millisecond or two.
TINY_WEIGHT_BYTES = 64 * 1024 * 1024


class LoadedModel:
    """The weights and their facts. `close` gives the memory back.

    `available_before` is how many bytes the machine could spare when nothing was loaded yet.
    """

    def __init__(self, pointer: Any, path: Path, available_before: int) -> None:
        self.pointer = pointer
        self.path = path
        self.available_before = available_before
        self.vocab = llama.llama_model_get_vocab(pointer)
        self.size_bytes = int(llama.llama_model_size(pointer))
        self.num_parameters = int(llama.llama_model_n_params(pointer))
        self.trained_context_length = int(llama.llama_model_n_ctx_train(pointer))
        self.description = _description(pointer)
        self.shape = _shape(pointer, self.vocab, self.size_bytes)
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
    available = machine.available_memory()
    pointer = llama.llama_model_load_from_file(bytes(path), params)
    if not pointer:
        raise ModelFileError(f"{path} can't be loaded as a GGUF model: {library.last_error()}")
    model = LoadedModel(pointer, path, available)
    if llama.llama_model_has_encoder(pointer) or not llama.llama_model_has_decoder(pointer):
        model.close()
        raise ModelFileError(f"{path} is not a text generation model; name a chat model.")
    return model


def slot_cells(settings: EngineSettings, trained_context_length: int) -> int:
    """Cells of one slot: what is wished for or trained for, rounded up as llama.cpp does."""
    wished = min(settings.context_length, trained_context_length)
    return -(-wished // CELL_MULTIPLE) * CELL_MULTIPLE


def context_params(model: LoadedModel, settings: EngineSettings, *, slots: int, cells: int) -> Any:
    """Parameters of a stream-mode context with `slots` slots of `cells` cells."""
    threads = settings.threads or _threads_for(model)
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
    """Raises `ModelFileError` when there is no memory for it, naming what would fit."""
    cells = slot_cells(settings, model.trained_context_length)
    if not llama.llama_supports_gpu_offload():
        need = Need(model.shape, settings.slots, cells, min(settings.batch_tokens, _MAX_UBATCH))
        require_memory(model.path, need, model.available_before)
    params = context_params(model, settings, slots=settings.slots, cells=cells)
    library.forget_errors()
    context = llama.llama_init_from_model(model.pointer, params)
    if not context:
        raise ModelFileError(
            f"{model.path}: no context of {settings.slots} slots of {cells} tokens: "
            f"{library.last_error()} "
            "Fewer slots (PARLEY_ENGINE__SLOTS) or a shorter context "
            "(PARLEY_ENGINE__CONTEXT_LENGTH) need less memory."
        )
    return context


def _threads_for(model: LoadedModel) -> int:
    """All usable cores, but one for a tiny model.

    Threads wait for one another at every graph node, spinning. Where a node takes microseconds
    and other processes want the cores too, two threads were measured to be half as fast as one.
    """
    return 1 if model.size_bytes < TINY_WEIGHT_BYTES else machine.usable_cores()


def _description(pointer: Any) -> str:
    buffer = ctypes.create_string_buffer(256)
    llama.llama_model_desc(pointer, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")


def _shape(pointer: Any, vocab: Any, size_bytes: int) -> Shape:
    """The sizes that decide the need for memory; head sizes as the file says, else as usual."""
    width = int(llama.llama_model_n_embd(pointer))
    head = width // max(1, int(llama.llama_model_n_head(pointer)))
    architecture = _metadata(pointer, "general.architecture")
    key = int(_metadata(pointer, f"{architecture}.attention.key_length") or head)
    value = int(_metadata(pointer, f"{architecture}.attention.value_length") or head)
    inner = _metadata(pointer, f"{architecture}.feed_forward_length")
    return Shape(
        weight_bytes=size_bytes,
        num_layers=int(llama.llama_model_n_layer(pointer)),
        kv_width=(key + value) * int(llama.llama_model_n_head_kv(pointer)),
        embedding=width,
        feed_forward=int(inner) if inner.isdigit() else 4 * width,
        vocabulary=int(llama.llama_vocab_n_tokens(vocab)),
    )


def _metadata(pointer: Any, key: str) -> str:
    """A scalar of the file's metadata as text; empty where there is none."""
    buffer = ctypes.create_string_buffer(128)
    found = llama.llama_model_meta_val_str(pointer, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if found >= 0 else ""
