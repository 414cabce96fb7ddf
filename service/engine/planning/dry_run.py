"""What a model would need, asked of llama.cpp itself: it plans its buffers without making them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.domain.errors import ModelFileError
from service.engine import library
from service.engine.planning import backends, machine
from service.engine.planning.memory import MIN_CELLS, Need, Sizes
from service.engine.planning.tuning import TINY_WEIGHT_BYTES, Tuning, context_params, model_params
from service.settings import EngineSettings

# What the process grows by once it plans: the tables of a large vocabulary, and what busy sockets
# hold. Python and the libraries are there already, and count as used.
PROCESS_BYTES = 48 * 1024 * 1024

# What OpenBLAS works in, as measured with two threads; it is used where calibration finds so.
_BLAS_BYTES_PER_THREAD = 32 * 1024 * 1024

# What llama.cpp notes about each cell, beside what is in it; this is allocated in a dry run, too.
_CELL_BYTES = 64

_MIB = 1024 * 1024
# "llama_kv_cache: size = 384.00 MiB (4096 cells, …": once for each kind of memory a model has.
_KV = re.compile(r"^llama_(?:kv_cache|memory)\w*: .*?\bsize = +([\d.]+) MiB")
# "sched_reserve: CPU compute buffer size = 39.51 MiB": a device is named again when it changes.
_BUFFER = re.compile(r": +(\S+) +(compute|output) buffer size = +([\d.]+) MiB")


class DryRun:
    """A model whose file has been read, but not its weights."""

    def __init__(self, path: Path, pointer: Any, settings: EngineSettings, available: int) -> None:
        self._path = path
        self._pointer = pointer
        self._settings = settings
        self._available = available
        self._known: dict[Sizes, Need] = {}
        self.weights = int(llama.llama_model_size(pointer))
        can_use_blas = backends.has_blas() and settings.blas != "off"
        threads = settings.threads or machine.usable_cores()
        if can_use_blas and self.weights >= TINY_WEIGHT_BYTES:
            self._blas_bytes = threads * _BLAS_BYTES_PER_THREAD
        else:
            self._blas_bytes = 0
        self.trained_context_length = int(llama.llama_model_n_ctx_train(pointer))

    def need(self, sizes: Sizes) -> Need:
        """What it takes with these sizes; an estimate where that is far from `available` bytes.

        Raises `ModelFileError` if llama.cpp refuses them.
        """
        estimate = self._estimate(sizes)
        return estimate if estimate.conversations > self._available else self._ask(sizes)

    def _estimate(self, sizes: Sizes) -> Need:
        """From two small ones: every cell takes as much as any other."""
        small, double = (self._ask(Sizes(1, cells)) for cells in (MIN_CELLS, 2 * MIN_CELLS))
        per_cell = (double.conversations - small.conversations) / MIN_CELLS
        per_slot = small.conversations + per_cell * (sizes.cells - MIN_CELLS)
        return replace(small, conversations=int(per_slot * sizes.slots))

    def _ask(self, sizes: Sizes) -> Need:
        if sizes not in self._known:
            self._known[sizes] = self._simulate(sizes)
        return self._known[sizes]

    def _simulate(self, sizes: Sizes) -> Need:
        library.forget_errors()
        params = context_params(self._settings, sizes, Tuning(1, 1))
        with library.overhearing() as lines:
            context = llama.llama_init_from_model(self._pointer, params)
        if not context:
            raise ModelFileError(
                f"{self._path}: no context of {sizes} is possible: {library.last_error()}"
            )
        llama.llama_free(context)
        conversations, working = bytes_told(lines)
        cells = _CELL_BYTES * sizes.total
        working += self._blas_bytes
        return Need(self.weights, conversations + cells, working, PROCESS_BYTES)


@contextmanager
def dry_run(path: Path, settings: EngineSettings, available: int) -> Iterator[DryRun]:
    """The model, read without its weights, for a plan of up to `available` bytes.

    Raises `ModelFileError` for what is not a model.
    """
    backends.load()
    params = model_params(settings)
    params.no_alloc = True
    params.load_mode = llama.LLAMA_LOAD_MODE_NONE
    library.forget_errors()
    pointer = llama.llama_model_load_from_file(bytes(path), params)
    if not pointer:
        raise ModelFileError(f"{path} can't be loaded as a GGUF model: {library.last_error()}")
    try:
        yield DryRun(path, pointer, settings, available)
    finally:
        llama.llama_model_free(pointer)
        library.give_back_memory()  # a vocabulary came and went


def bytes_told(lines: list[str]) -> tuple[int, int]:
    """Bytes of the KV cache, and of the buffers of one call, from what llama.cpp said."""
    conversations = sum(float(m[1]) for line in lines if (m := _KV.search(line)))
    buffers = {(m[1], m[2]): float(m[3]) for line in lines if (m := _BUFFER.search(line))}
    return int(conversations * _MIB), int(sum(buffers.values()) * _MIB)
