"""The likeliest tokens of a row, found where the model is computed.

A row of logits is large (600 kB for 152 000 tokens), and a graphics card would have to hand over
all of it for each token, to be searched by the processor. llama.cpp can find the best in the
graph itself: then only they come over. It costs a processor more than it saves.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from service.domain.sampling import Sampling
from service.engine import library
from service.engine.runner import RunnerError
from service.engine.sampling.candidates import Ids, Row
from service.engine.sampling.sampler import Tokens, choice_of

_count = library.function(
    "llama_get_sampled_candidates_count_ith",
    *(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int32),
    keep_gil=True,
)
_ids = library.function(
    "llama_get_sampled_candidates_ith",
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
    keep_gil=True,
)
_logits = library.function(
    "llama_get_sampled_logits_ith",
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
    keep_gil=True,
)

Best = tuple[Ids | None, Row]
"""Token ids and their logits, by ascending id; without ids the logits are those of all tokens."""


class CardCandidates:
    """Has a context hand over the `count` best tokens of each row instead of all. Engine thread.

    A slot can be made to hand over whole rows: `whole`. Changing that costs some milliseconds, for
    the graph is built anew.
    """

    def __init__(self, context: Any, num_slots: int, count: int) -> None:
        self._context = context
        self._count = count
        self._chains: dict[int, Any] = {}
        for slot in range(num_slots):
            self.whole(slot, False)

    def whole(self, slot: int, wanted: bool) -> None:
        """Whether all logits of the slot's rows are wanted from the next call on."""
        if wanted == (slot not in self._chains):
            return
        if wanted:
            llama.llama_set_sampler(self._context, slot, None)
            llama.llama_sampler_free(self._chains.pop(slot))
            return
        # One that was attached before can't be attached again.
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_k(self._count))
        if llama.llama_set_sampler(self._context, slot, chain):
            self._chains[slot] = chain
        else:
            llama.llama_sampler_free(chain)

    def finds(self, slot: int) -> bool:
        """Whether rows of this slot come as their best tokens only."""
        return slot in self._chains

    def best(self, row: int) -> tuple[Ids, Row]:
        """Of a row that was computed, and waited for. Raises `RunnerError`."""
        count = _count(self._context, row)
        if not 0 < count <= self._count:
            raise RunnerError(f"row {row} came with {count} candidates instead of {self._count}")
        ids = np.ctypeslib.as_array((ctypes.c_int32 * count).from_address(_ids(self._context, row)))
        values = (ctypes.c_float * count).from_address(_logits(self._context, row))
        order = ids.argsort(kind="stable")
        return ids[order].astype(np.intp), np.ctypeslib.as_array(values)[order]

    def close(self) -> None:
        """Before the context is."""
        for slot in list(self._chains):
            self.whole(slot, True)


def is_among_best(sampling: Sampling, tokens: Tokens, count: int) -> bool:
    """Whether the `count` best tokens decide: any other can't be chosen, and changes no chance."""
    plain = replace(sampling, repeat_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
    adjusts = (
        sampling != plain
        or sampling.logit_bias
        or sampling.ignore_eos
        or tokens.suppressed
        or sampling.min_tokens
        or sampling.dry_multiplier
        or sampling.mirostat
        or sampling.top_n_sigma > 0.0
    )
    few = sampling.greedy or 0 < sampling.top_k < count
    return few and not adjusts and tokens.size > count


class BestSampler:
    """The sampling state of one sequence whose options look at the best tokens only. See `Sampler`
    for the contract; chooses what `RowSampler` would."""

    def __init__(self, sampling: Sampling, rows: Callable[[int], Best]) -> None:
        self._rows: Callable[[int], Best] | None = rows
        self._choose = choice_of(sampling)

    needs_whole_rows = False

    def sample(self, row: int) -> int:
        if self._rows is None:
            raise RunnerError("the sampler was closed")
        ids, logits = self._rows(row)
        place = self._choose(logits)
        return place if ids is None else int(ids[place])

    def accept(self, token_id: int) -> None:
        """Nothing that came before matters."""

    def forced(self) -> list[int]:
        return []

    def close(self) -> None:
        self._rows = None
