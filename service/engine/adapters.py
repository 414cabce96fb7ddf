"""LoRA files that are a part of the model: one engine, one base, always the same adapters."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.domain.errors import ModelFileError
from service.domain.model import ModelInfo
from service.engine import library
from service.engine.kv.fingerprint import fingerprint_of, print_of
from service.engine.planning.loading import require_file


@dataclass(frozen=True, slots=True)
class LoraFile:
    """An adapter, and how much it counts."""

    path: Path
    scale: float = 1.0

    @property
    def identity(self) -> str:
        return fingerprint_of(print_of(self.path), self.scale)


def to_lora_file(text: str) -> LoraFile:
    """`PATH=SCALE`, as the command line has it. Raises `ValueError`."""
    path, _, scale = text.rpartition("=")
    return LoraFile(Path(path), float(scale))


def apply(model: Any, context: Any, files: Sequence[LoraFile]) -> None:
    """Have all that `context` computes pass through these adapters; they end with the model.

    Raises `ModelFileError` naming the file that is missing, no adapter, or one of another model.
    """
    pointers = [_load(model, file) for file in files]
    adapters = (llama.llama_adapter_lora_p_ctypes * len(files))(*pointers)
    scales = (ctypes.c_float * len(files))(*(file.scale for file in files))
    if llama.llama_set_adapters_lora(context, adapters, len(files), scales) != 0:
        names = ", ".join(str(file.path) for file in files)
        raise ModelFileError(f"{names} cannot be applied together: {library.last_error()}")


def adapted(info: ModelInfo, files: Sequence[LoraFile]) -> ModelInfo:
    """What clients are told of the model with these adapters."""
    found = [file.path.stat() for file in files]
    return replace(
        info,
        created=max(info.created, *(int(each.st_mtime) for each in found)),
        size_bytes=info.size_bytes + sum(each.st_size for each in found),
    )


def _load(model: Any, file: LoraFile) -> Any:
    require_file(file.path)
    library.forget_errors()
    pointer = llama.llama_adapter_lora_init(model, bytes(file.path))
    if not pointer:
        raise ModelFileError(
            f"{file.path} is not a LoRA adapter for this model: {library.last_error()}"
        )
    return pointer
