"""Which attention a call is computed with: the fused one, or plain products.

llama.cpp's fused attention on processors goes through the keys and values of a conversation once
for every row, unless there are 64 rows of it (`GGML_FA_TILE_Q` in ggml-cpu/common.h). A few dozen
rows behind a long conversation are the next turn of a chat, or guesses, or a piece of a prompt
between two steps: for those plain products are quicker, for single rows and for many they are not.

A context is told once which to use, though nothing but the graph of each call hangs on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama

# From so many rows of one conversation on the fused attention looks at them together.
FUSED_ROWS = 64
# With fewer tokens before them there is little to go through.
_LEAST_CELLS = 512
# llama.cpp looks at cells in steps of this.
_CELLS_AT_ONCE = 256
# So much of what calls work in may hold the scores of few rows, which need little of the rest.
_SHARE_OF_BUFFERS = 0.6
_FLOAT_BYTES = 4

# In `llama_context` a reference comes first, then `llama_cparams`, which begins with these counts.
_COUNTS_AT = 8
_COUNTS = (
    llama.llama_n_ctx,
    llama.llama_n_ctx_seq,
    llama.llama_n_batch,
    llama.llama_n_ubatch,
    llama.llama_n_seq_max,
)
# Its flags follow within so many bytes: causal_attn, offload_kqv, flash_attn.
_FLAGS_END = 192
_FLASH_AFTER_CAUSAL = 2


class AttentionSwitch:
    """Fused or plain, for the next call of a context. Use `find_switch`."""

    def __init__(self, flag: ctypes.c_uint8) -> None:
        self._flag = flag

    def fuse(self, wanted: bool) -> None:
        self._flag.value = wanted


def find_switch(context: Any) -> AttentionSwitch | None:
    """The switch of a context that was created with fused attention; None where it has plain, or
    is not laid out as expected, which is llama.cpp's own business.

    What is looked for shows itself: counts that llama.cpp tells, and a flag that it can be made to
    turn, two places before the one in question.
    """
    base = ctypes.cast(context, ctypes.c_void_p).value
    if base is None:
        return None
    counts = (ctypes.c_uint32 * len(_COUNTS)).from_address(base + _COUNTS_AT)
    if list(counts) != [int(count(context)) for count in _COUNTS]:
        return None
    flags = (ctypes.c_uint8 * _FLAGS_END).from_address(base)
    before = bytes(flags)
    llama.llama_set_causal_attn(context, False)
    turned = [at for at, flag in enumerate(flags) if flag != before[at]]
    if len(turned) != 1:
        return None  # none: the model sees what follows, too
    llama.llama_set_causal_attn(context, True)
    at = turned[0] + _FLASH_AFTER_CAUSAL
    if bytes(flags) != before or at >= _FLAGS_END or before[at] != 1:
        return None
    return AttentionSwitch(ctypes.c_uint8.from_address(base + at))


class Attention:
    """Chooses for each call. `plain_from`: rows of one conversation from which plain products are
    quicker; `buffer_bytes`: what calls work in, which plain products must not make larger."""

    def __init__(self, context: Any, switch: AttentionSwitch, plain_from: int, buffer_bytes: int):
        self._switch = switch
        self._plain_from = plain_from
        self._room = int(_SHARE_OF_BUFFERS * buffer_bytes)
        model = llama.llama_get_model(context)
        heads = max(1, int(llama.llama_model_n_head(model)))
        width = int(llama.llama_model_n_embd(model)) // heads
        self._score_bytes = _FLOAT_BYTES * (heads + 1)  # and the mask
        self._cell_bytes = 2 * width * int(llama.llama_model_n_head_kv(model))  # values, turned

    def choose(self, calls: Sequence[tuple[int, int]]) -> None:
        """For a call that goes on with these conversations: where each begins, and its rows."""
        self.fuse(not self._is_plain(calls))

    def fuse(self, wanted: bool) -> None:
        """Whatever would be quicker."""
        self._switch.fuse(wanted)

    def _is_plain(self, calls: Sequence[tuple[int, int]]) -> bool:
        rows = max(count for _, count in calls)
        if not self._plain_from <= rows < FUSED_ROWS:
            return False
        if min(start for start, _ in calls) < _LEAST_CELLS:
            return False
        longest = max(start + count for start, count in calls)
        cells = len(calls) * -(-longest // _CELLS_AT_ONCE) * _CELLS_AT_ONCE
        return cells * (rows * self._score_bytes + self._cell_bytes) <= self._room
