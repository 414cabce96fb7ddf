"""Whether OpenBLAS helps this model on this machine.

With the BLAS backend loaded, every product of 32 rows or more first unpacks the whole weight:
about a second per call for a model of half a billion parameters. Short prompts lose by that
always, long ones may gain. So it is measured from which length on they do, and the runner reads
anything shorter in calls of fewer rows, which BLAS leaves alone.
"""

from __future__ import annotations

import ctypes
import math
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
# also brings the weights into memory. A trial ends after one layer, or when its time is up; the
# second is left out where the first took long.
_NUM_TRIALS = 2
_PRODUCTS_PER_LAYER = 7
_SECONDS_PER_TRIAL = 0.5
_SECONDS_FOR_ALL = 1.0

# Calls of this many rows and more go through BLAS, which no decoding can afford.
BLAS_ROWS = 32

# Reading in calls of fewer rows takes that much longer per token than in one large call.
_COST_OF_SMALL_CALLS = 1.2

# BLAS must pay from this share of the longest call on, or it is not worth having.
_MAX_SHARE = 0.75

_CELLS = 512

_registry = library.function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)
_unload = library.function("ggml_backend_unload", None, ctypes.c_void_p)
_register = library.function("ggml_backend_register", None, ctypes.c_void_p)
_operation = library.function("ggml_op_desc", ctypes.c_char_p, ctypes.c_void_p, keep_gil=True)


def settle_blas(model: LoadedModel, settings: EngineSettings) -> int | None:
    """Leave the BLAS backend as it serves `model` best.

    Returns the fewest tokens in one call for which BLAS pays, or None when it is not in use.
    Called before the model's context is created: a context keeps the backends of its birth.
    Takes about 2 s at most, unless single products are longer than that.
    """
    blas = _registry(b"BLAS")
    if not blas:
        _log.info("blas_calibrated", in_use=False, reason="this build has no BLAS")
        return None
    if settings.blas == "on":
        _log.info("blas_calibrated", in_use=True, reason="forced by the settings")
        return BLAS_ROWS
    reason = _reason_against(model, settings)
    if reason is None:
        return _measure(blas, model, settings)
    _unload(blas)
    _log.info("blas_calibrated", in_use=False, reason=reason)
    return None


def _reason_against(model: LoadedModel, settings: EngineSettings) -> str | None:
    """Why BLAS need not even be measured, if so."""
    if settings.blas == "off":
        return "forced by the settings"
    if settings.slots >= BLAS_ROWS:
        return f"decoding {settings.slots} slots at once would lose"
    if model.size_bytes < TINY_WEIGHT_BYTES:
        return "the model is too small to gain"
    return None


def _measure(blas: Any, model: LoadedModel, settings: EngineSettings) -> int | None:
    count = _num_tokens(settings)
    with ExitStack() as contexts:
        with_blas = _Trial(model, settings, contexts)
        _unload(blas)
        without_blas = _Trial(model, settings, contexts)
        began = time.perf_counter()
        for _ in range(_NUM_TRIALS):
            if time.perf_counter() - began > _SECONDS_FOR_ALL:
                break
            with_blas.run(count)
            without_blas.run(count)
            with_blas.run(BLAS_ROWS)
    products = min(with_blas.num_products, without_blas.num_products)
    slow = without_blas.seconds(count, products)
    quick = with_blas.seconds(count, products)
    short = with_blas.seconds(BLAS_ROWS, products)
    pays_from = break_even(count, slow, quick, short) if products else None
    if pays_from is not None:
        _register(blas)
    _log.info(
        "blas_calibrated",
        in_use=pays_from is not None,
        reason="measured" if products else "could not be measured",
        pays_from_tokens=pays_from,
        tokens=count,
        products=products,
        seconds_with_blas=round(quick, 4),
        seconds_without_blas=round(slow, 4),
        seconds_with_blas_for_32_tokens=round(short, 4),
    )
    return pays_from


def break_even(count: int, slow: float, quick: float, short: float) -> int | None:
    """The fewest tokens for which BLAS is quicker; None when that is (nearly) never.

    `count` tokens take `slow` seconds without BLAS and `quick` with it, 32 tokens `short` with
    it. BLAS costs something per call and something per token, the other way per token only.
    """
    if count <= BLAS_ROWS:
        return None
    per_token = max(0.0, (quick - short) / (count - BLAS_ROWS))
    per_call = short - BLAS_ROWS * per_token
    saved_per_token = slow / count * _COST_OF_SMALL_CALLS - per_token
    if saved_per_token <= 0 or quick >= slow:
        return None
    tokens = max(BLAS_ROWS, math.ceil(per_call / saved_per_token))
    return tokens if tokens <= _MAX_SHARE * count else None


def _num_tokens(settings: EngineSettings) -> int:
    return min(settings.batch_tokens, _CELLS)


class _Trial:
    """One way of computing: times matrix products of a prompt chunk, and stops early.

    A context keeps the backends that were registered when it was created.
    """

    def __init__(self, model: LoadedModel, settings: EngineSettings, contexts: ExitStack) -> None:
        self._runs: list[tuple[int, list[float]]] = []
        self._began = 0.0
        self._callback = llama.ggml_backend_sched_eval_callback(self._on_node)
        chunk = settings.model_copy(update={"batch_tokens": _num_tokens(settings)})
        params = context_params(model, chunk, slots=1, cells=_CELLS)
        params.cb_eval = self._callback
        self._context = llama.llama_init_from_model(model.pointer, params)
        if self._context:
            contexts.callback(llama.llama_free, self._context)
            self._flag = library.AbortFlag(self._context)

    @property
    def num_products(self) -> int:
        """How many products every run got to."""
        return min((len(done) for _, done in self._runs), default=0)

    def seconds(self, count: int, products: int) -> float:
        """The best time in which this many products of `count` tokens were done."""
        times = (done[products - 1] for c, done in self._runs if c == count and products)
        return min(times, default=0.0)

    def run(self, count: int) -> None:
        """Read a prompt of `count` tokens, until one layer is done or time is up."""
        self._runs.append((count, []))
        if not self._context:
            return
        batch = Batch(count)
        batch.position[:] = range(count)
        self._flag.lower()
        self._began = time.perf_counter()
        llama.llama_decode(self._context, batch.close(count, outputs=False))
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)

    def _on_node(self, node: int, ask: bool, _user_data: object) -> bool:
        """llama.cpp asks about each node, then tells when one that we asked for is done."""
        if ask:
            return bool(_operation(node) == b"MUL_MAT")
        elapsed = time.perf_counter() - self._began
        done = self._runs[-1][1]
        done.append(elapsed)
        if len(done) < _PRODUCTS_PER_LAYER and elapsed < _SECONDS_PER_TRIAL:
            return True
        self._flag.raise_()
        return False
