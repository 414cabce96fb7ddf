"""How the model is computed on this machine: what calibration decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as llama

from service.engine.planning.attention import FUSED_ROWS
from service.engine.planning.memory import Sizes
from service.settings import EngineSettings

MAX_UBATCH = 512

# With less weight than this a whole step takes a millisecond or two.
TINY_WEIGHT_BYTES = 64 * 1024 * 1024


# Guesses in one call. Measured: 16 rows cost little more than half of what they cost one by one.
MAX_DRAFT = 15


@dataclass(frozen=True, slots=True)
class Tuning:
    """`decode_threads` compute steps of running streams, `prefill_threads` prompts.

    `ubatch`: rows that are computed together. `flash_attention` None: as llama.cpp sees fit.
    `blas_from`: rows in one call from which OpenBLAS is worth its cost; `plain_from`: rows of one
    conversation from which, up to 63, flash attention is not worth its own. None: never.
    """

    decode_threads: int
    prefill_threads: int
    ubatch: int = MAX_UBATCH
    flash_attention: bool | None = None
    blas_from: int | None = None
    plain_from: int | None = None

    def __str__(self) -> str:
        attention = {None: "as llama.cpp chooses", True: "on", False: "off"}[self.flash_attention]
        if self.plain_from is not None:
            attention += f" but for {self.plain_from} to {FUSED_ROWS - 1} rows of a conversation"
        blas = "off" if self.blas_from is None else f"from {self.blas_from} tokens on"
        return (
            f"{self.decode_threads} threads for decoding, {self.prefill_threads} for prompts, "
            f"{self.ubatch} rows at once, flash attention {attention}, OpenBLAS {blas}"
        )


def num_outputs(slots: int) -> int:
    """Rows of logits in one call: one for each slot, or those of one sequence with guesses."""
    return max(slots, 1 + MAX_DRAFT)


def model_params(settings: EngineSettings) -> Any:
    """Parameters of a model: what of it goes to which graphics card."""
    params = llama.llama_model_default_params()
    params.n_gpu_layers = settings.gpu_layers
    params.split_mode = _SPLIT[settings.gpu_split]
    params.main_gpu = settings.main_gpu
    return params


def context_params(settings: EngineSettings, sizes: Sizes, tuning: Tuning) -> Any:
    """Parameters of a stream-mode context of these sizes."""
    params = llama.llama_context_default_params()
    params.n_ctx = sizes.total
    params.n_seq_max = sizes.slots
    params.n_batch = max(settings.batch_tokens, sizes.slots)
    params.n_ubatch = min(params.n_batch, max(tuning.ubatch, sizes.slots))
    # The default reserves a row of logits per batch token.
    params.n_outputs_max = min(params.n_batch, num_outputs(sizes.slots))
    # Only looked at where the best tokens are found in the graph.
    params.n_outputs_max_per_seq = min(params.n_outputs_max, 1 + MAX_DRAFT)
    params.n_threads = tuning.decode_threads
    params.n_threads_batch = tuning.decode_threads  # drives every call of more than one token
    params.flash_attn_type = _ATTENTION[tuning.flash_attention]
    params.swa_full = True  # a windowed cache could not be trimmed to a shared prefix
    params.kv_unified = False
    params.no_perf = True
    return params


_SPLIT = {
    "none": llama.LLAMA_SPLIT_MODE_NONE,
    "layer": llama.LLAMA_SPLIT_MODE_LAYER,
    "row": llama.LLAMA_SPLIT_MODE_ROW,
}

_ATTENTION = {
    None: llama.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: llama.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
