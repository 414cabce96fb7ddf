"""Whether OpenBLAS helps this model on this machine.

With the BLAS backend loaded, every product of 32 rows or more first unpacks the whole weight.
On CPUs with fast integer products that costs far more than it saves (a second per call for a
model of half a billion parameters); on others long prompts gain. So it is measured.
"""

from __future__ import annotations

import ctypes
import time
from contextlib import ExitStack
from typing import Any

import llama_cpp.llama_cpp as llama

from service.engine import library
from service.engine.batch import Batch
from service.engine.loading import TINY_WEIGHT_BYTES, LoadedModel, context_params
from service.log import get_logger
from service.settings import EngineSettings

_log = get_logger(__name__)

# Each way of computing is tried twice, in turn, and its better time counts: the first trial
# also brings the weights into memory. A trial ends after one layer, or when its time is up.
_NUM_TRIALS = 2
_PRODUCTS_PER_LAYER = 7
_SECONDS_PER_TRIAL = 0.5

# Shorter prompts and larger batches of decoding lose more than what is measured.
_REQUIRED_GAIN = 1.1

# Batches of this many rows go through BLAS, which no decoding can afford.
_BLAS_ROWS = 32

_CELLS = 512

_registry = library.function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)
_unload = library.function("ggml_backend_unload", None, ctypes.c_void_p)
_register = library.function("ggml_backend_register", None, ctypes.c_void_p)
_operation = library.function("ggml_op_desc", ctypes.c_char_p, ctypes.c_void_p, keep_gil=True)


def settle_blas(model: LoadedModel, settings: EngineSettings) -> bool:
    """Leave the BLAS backend as it serves `model` best; says whether it is in use.

    Called before the model's context is created: a context keeps the backends of its birth.
    Takes 2 s at most, unless single products are longer than that.
    """
    blas = _registry(b"BLAS")
    if not blas:
        _log.info("blas_calibrated", in_use=False, reason="this build has no BLAS")
        return False
    if settings.blas == "on":
        _log.info("blas_calibrated", in_use=True, reason="forced by the settings")
        return True
    if settings.blas == "off":
        return _without(blas, "forced by the settings")
    if settings.slots >= _BLAS_ROWS:
        return _without(blas, f"decoding {settings.slots} slots at once would lose")
    if model.size_bytes < TINY_WEIGHT_BYTES:
        return _without(blas, "the model is too small to gain")
    return _measure(blas, model, settings)


def _without(blas: Any, reason: str) -> bool:
    _unload(blas)
    _log.info("blas_calibrated", in_use=False, reason=reason)
    return False


def _measure(blas: Any, model: LoadedModel, settings: EngineSettings) -> bool:
    with ExitStack() as contexts:
        with_blas = _Trial(model, settings, contexts)
        _unload(blas)
        without_blas = _Trial(model, settings, contexts)
        for _ in range(_NUM_TRIALS):
            with_blas.run()
            without_blas.run()
    shared = min(with_blas.num_products, without_blas.num_products)
    slow, quick = without_blas.seconds(shared), with_blas.seconds(shared)
    in_use = shared > 0 and quick * _REQUIRED_GAIN < slow
    if in_use:
        _register(blas)
    _log.info(
        "blas_calibrated",
        in_use=in_use,
        reason="measured" if shared else "could not be measured",
        tokens=_num_tokens(settings),
        products=shared,
        seconds_with_blas=round(quick, 4),
        seconds_without_blas=round(slow, 4),
    )
    return in_use


def _num_tokens(settings: EngineSettings) -> int:
    return min(settings.batch_tokens, _CELLS)


class _Trial:
    """One way of computing: times matrix products of a prompt chunk, and stops early.

    A context keeps the backends that were registered when it was created.
    """

    def __init__(self, model: LoadedModel, settings: EngineSettings, contexts: ExitStack) -> None:
        self._count = _num_tokens(settings)
        self._done: list[list[float]] = []
        self._began = 0.0
        self._callback = llama.ggml_backend_sched_eval_callback(self._on_node)
        chunk = settings.model_copy(update={"batch_tokens": self._count})
        params = context_params(model, chunk, slots=1, cells=_CELLS)
        params.cb_eval = self._callback
        self._context = llama.llama_init_from_model(model.pointer, params)
        if self._context:
            contexts.callback(llama.llama_free, self._context)
            self._flag = library.AbortFlag(self._context)

    @property
    def num_products(self) -> int:
        """How many products every run got to."""
        return min((len(done) for done in self._done), default=0)

    def seconds(self, products: int) -> float:
        """The best time in which this many products were done."""
        return min((done[products - 1] for done in self._done if products), default=0.0)

    def run(self) -> None:
        self._done.append([])
        if not self._context:
            return
        batch = Batch(self._count)
        batch.position[:] = range(self._count)
        self._flag.lower()
        self._began = time.perf_counter()
        llama.llama_decode(self._context, batch.close(self._count, outputs=False))
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)

    def _on_node(self, node: int, ask: bool, _user_data: object) -> bool:
        """llama.cpp asks about each node, then tells when one that we asked for is done."""
        if ask:
            return bool(_operation(node) == b"MUL_MAT")
        elapsed = time.perf_counter() - self._began
        done = self._done[-1]
        done.append(elapsed)
        if len(done) < _PRODUCTS_PER_LAYER and elapsed < _SECONDS_PER_TRIAL:
            return True
        self._flag.raise_()
        return False
