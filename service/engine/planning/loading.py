"""A GGUF file becomes a loaded model, and a loaded model gets a context to run in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.domain.errors import ModelFileError
from service.engine import library
from service.engine.planning import backends, machine
from service.engine.planning.dry_run import DryRun, dry_run
from service.engine.planning.memory import (
    CELL_MULTIPLE,
    MemoryPlan,
    Need,
    Sizes,
    Wish,
    plan_memory,
    wish_of,
)
from service.engine.planning.pages import use_huge_pages
from service.engine.planning.tuning import Tuning, context_params, model_params
from service.log import get_logger
from service.settings import EngineSettings

_log = get_logger(__name__)


class LoadedModel:
    """The weights and their facts. `close` gives the memory back."""

    def __init__(self, pointer: Any, path: Path) -> None:
        self.pointer = pointer
        self.path = path
        self.vocab = llama.llama_model_get_vocab(pointer)
        self.size_bytes = int(llama.llama_model_size(pointer))
        self.num_parameters = int(llama.llama_model_n_params(pointer))
        self.window = int(llama.llama_model_n_swa(pointer))
        self.trained_context_length = int(llama.llama_model_n_ctx_train(pointer))
        self.description = _description(pointer)
        template = llama.llama_model_chat_template(pointer, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None

    def close(self) -> None:
        llama.llama_model_free(self.pointer)


def require_file(path: Path) -> None:
    """Raises `ModelFileError` where there is no file."""
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; name a GGUF model file.")


def load_model(
    path: Path,
    settings: EngineSettings,
    on_progress: Callable[[float], None],
    *,
    copied: bool = False,
) -> LoadedModel:
    """A model that writes text. Raises `ModelFileError` naming the path and what is wrong.

    Weights that are `copied` are no more the system's copy of the file, which all processes share,
    but this one's own, and in huge pages where the system has them.
    """
    model = load_weights(path, settings, on_progress, copied=copied)
    if copied:
        _log.info("weights_copied", in_huge_pages=use_huge_pages())
    if not _writes(model.pointer):
        model.close()
        raise ModelFileError(f"{path} is not a text generation model; name a chat model.")
    return model


def _writes(pointer: Any) -> bool:
    """Whether it goes on with a text; those that see all of it at once can only judge it."""
    if llama.llama_model_has_encoder(pointer) or not llama.llama_model_has_decoder(pointer):
        return False
    architecture = metadata(pointer, "general.architecture")
    return metadata(pointer, f"{architecture}.attention.causal") != "false"


def load_weights(
    path: Path,
    settings: EngineSettings,
    on_progress: Callable[[float], None],
    *,
    copied: bool = False,
) -> LoadedModel:
    """A model of any kind. Raises `ModelFileError` naming the path and what is wrong with it."""
    require_file(path)
    backends.load()

    def report(share: float, _user_data: object) -> bool:
        on_progress(share)
        return True  # False would end the load

    progress = llama.llama_progress_callback(report)
    params = model_params(settings)
    params.progress_callback = progress
    if copied:
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE
    return _load(path, params)


def load_vocabulary(path: Path) -> LoadedModel:
    """A model without its weights, for its words alone. Raises `ModelFileError`."""
    require_file(path)
    backends.load()
    params = llama.llama_model_default_params()
    params.vocab_only = True
    return _load(path, params)


def _load(path: Path, params: llama.llama_model_params) -> LoadedModel:
    library.forget_errors()
    pointer = llama.llama_model_load_from_file(bytes(path), params)
    if not pointer:
        raise ModelFileError(f"{path} can't be loaded as a GGUF model: {library.last_error()}")
    return LoadedModel(pointer, path)


def draft_sizes(sizes: Sizes, trained_context_length: int) -> Sizes:
    """Those of a draft model's context beside one of `sizes`: as long, as far as it can see."""
    own = -(-trained_context_length // CELL_MULTIPLE) * CELL_MULTIPLE
    return replace(sizes, cells=min(sizes.cells, own))


@contextmanager
def needs_of(
    path: Path, settings: EngineSettings, available: int
) -> Iterator[tuple[DryRun, Callable[[Sizes], Need]]]:
    """The model, read without its weights, and what it takes by its sizes: together with the
    draft model that goes ahead of it, where the settings name one. Raises `ModelFileError`."""
    with ExitStack() as reading:
        dry = reading.enter_context(dry_run(path, settings, available))
        if settings.draft_model is None:
            yield dry, dry.need
            return
        draft_path = Path(settings.draft_model)
        require_file(draft_path)
        draft = reading.enter_context(dry_run(draft_path, settings, available))
        length = draft.trained_context_length
        yield dry, lambda sizes: dry.need(sizes) + draft.need(draft_sizes(sizes, length))


def plan_for(path: Path, settings: EngineSettings) -> tuple[Wish, MemoryPlan]:
    """What was asked for, and what the model will run with in the memory that is available now.

    Raises `ModelFileError` for what is not a model, and for one that does not fit.
    """
    require_file(path)
    backends.load()
    available = available_for(settings)
    with needs_of(path, settings, available) as (dry, need_of):
        wish = wish_of(settings, dry.trained_context_length)
        return wish, plan_memory(path, wish, need_of, available)


def open_context(model: LoadedModel, settings: EngineSettings, sizes: Sizes, tuning: Tuning) -> Any:
    """Raises `ModelFileError` when there is no memory for it."""
    params = context_params(settings, sizes, tuning)
    library.forget_errors()
    context = llama.llama_init_from_model(model.pointer, params)
    if not context:
        raise ModelFileError(
            f"{model.path}: no context of {sizes}: {library.last_error()} "
            "Fewer slots (PARLEY_ENGINE__SLOTS) or a shorter context "
            "(PARLEY_ENGINE__CONTEXT_LENGTH) need less memory."
        )
    return context


def available_for(settings: EngineSettings) -> int:
    """Bytes for a model: of the graphics cards where all of it goes there, else of the machine."""
    cards = backends.graphics_cards()
    if cards and settings.gpu_layers < 0:
        return sum(card.free for card in cards)
    return machine.available_memory()


def _description(pointer: Any) -> str:
    buffer = ctypes.create_string_buffer(256)
    llama.llama_model_desc(pointer, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")


def metadata(pointer: Any, key: str) -> str:
    """A scalar of the file's metadata as text; empty where there is none."""
    buffer = ctypes.create_string_buffer(128)
    found = llama.llama_model_meta_val_str(pointer, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if found >= 0 else ""
