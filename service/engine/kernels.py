"""With what each call is computed: so many threads, OpenBLAS or not, this attention or that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from service.engine.planning.attention import Attention, find_switch
from service.engine.planning.backends import Blas
from service.engine.planning.tuning import Tuning
from service.engine.runner import DecodeRow, PrefillPart
from service.engine.sampling.candidates import Row
from service.log import get_logger

_log = get_logger(__name__)

# Two ways to compute the same differ by less than this share of what logits differ among
# themselves (measured: 5 % with random weights); wrong ones by about all of it.
_TOLERANCE = 0.25


class Kernels:
    """Chooses for the calls of one context what calibration found best. Engine thread."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._num_threads = 0
        self._blas: Blas | None = None  # where it is in use at all
        self._attention: Attention | None = None  # where there is a choice
        self.tuning = Tuning(0, 0)  # as the context was opened

    def adopt(self, tuning: Tuning, buffer_bytes: int) -> None:
        """Compute as `tuning` says from now on; calls work in so many bytes."""
        self.tuning = tuning
        self._blas = None if tuning.blas_from is None else Blas()
        if self._attention is not None:
            self._attention.fuse(True)
            self._attention = None
        if tuning.plain_from is not None and (switch := find_switch(self._context)) is not None:
            self._attention = Attention(self._context, switch, tuning.plain_from, buffer_bytes)

    @property
    def chooses(self) -> bool:
        """Whether there are two attentions."""
        return self._attention is not None

    def prove(self, fused: Row, read: Callable[[], Row]) -> None:
        """Choose between attentions only if both say the same: `fused` are the logits after some
        text, `read` reads it anew and returns those after it."""
        if self._attention is None:
            return
        self._attention.fuse(False)
        plain = read()
        self._attention.fuse(True)
        error = np.linalg.norm(plain - fused) / np.linalg.norm(fused - fused.mean())
        if not 0 < error <= _TOLERANCE:
            _log.warning("plain_attention_unused", error=round(float(error), 3))
            self._attention = None

    def for_prompts(self, parts: Sequence[PrefillPart]) -> None:
        """The next call reads these."""
        self._use_threads(self.tuning.prefill_threads)
        if self._blas is not None and self.tuning.blas_from is not None:
            total = sum(len(part.token_ids) for part in parts)
            self._blas.use(total >= self.tuning.blas_from)
        if self._attention is not None:
            self._attention.choose([(part.start, len(part.token_ids)) for part in parts])

    def for_steps(self, rows: Sequence[DecodeRow]) -> None:
        """The next call takes these a step further, some with guesses."""
        self._use_threads(self.tuning.decode_threads)
        if self._blas is not None:
            self._blas.use(False)
        if self._attention is not None:
            slots = [[*of_slot] for _, of_slot in groupby(rows, lambda row: row.slot)]
            self._attention.choose([(of_slot[0].position, len(of_slot)) for of_slot in slots])

    def _use_threads(self, count: int) -> None:
        if count != self._num_threads:
            self._num_threads = count
            llama.llama_set_n_threads(self._context, count, count)
