"""The KV cache of a context, slot by slot: cut, copied, taken out and put back.

Some memory cannot be cut (that of recurrent and hybrid models only knows its present end). There
the places that `anchor` has marked are what one can return to.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from service.engine import library
from service.engine.runner import RunnerError, State

# Beginnings of turns that a slot can return to; the memory of a recurrent model is small.
_MAX_ANCHORS = 4
_NUMBER, _PAIR = struct.Struct("<Q"), struct.Struct("<QQ")

_PARTIAL = llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_get_size = library.function(
    "llama_state_seq_get_size_ext",
    *(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32),
)
_get_data = library.function(
    "llama_state_seq_get_data_ext",
    *(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32),
    ctypes.c_uint32,
)
_set_data = library.function(
    "llama_state_seq_set_data_ext",
    *(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32),
    ctypes.c_uint32,
)


@dataclass(frozen=True, slots=True)
class _Anchor:
    """What cannot be cut, as it was when the slot held `position` tokens."""

    position: int
    state: State


class Cells:
    """All slots of one stream-mode context. Engine thread only.

    `held` has the number of tokens of each slot, as llama.cpp counts them. `can_cut` is found out
    by whoever can decode. The memory of a `windowed` model can be cut, but what is saved of it, and
    so what is restored, is only the window at its end.
    """

    def __init__(self, context: Any, num_slots: int, *, windowed: bool = False) -> None:
        self.can_cut = True
        self._windowed = windowed
        self._whole_from = [0] * num_slots
        self.held = [0] * num_slots
        self._context = context
        self._num_cells = int(llama.llama_n_ctx_seq(context))
        self._memory = llama.llama_get_memory(context)
        self._anchors: list[list[_Anchor]] = [[] for _ in range(num_slots)]

    def check(self, slot: int) -> None:
        """Raises `RunnerError` for a slot that does not exist."""
        if not 0 <= slot < len(self.held):
            raise RunnerError(f"slot {slot} does not exist; there are {len(self.held)}")

    def resident(self, slot: int) -> int:
        """How many tokens the slot holds; also set right in `held`."""
        self.check(slot)
        self.held[slot] = int(llama.llama_memory_seq_pos_max(self._memory, slot)) + 1
        return self.held[slot]

    def trim(self, slot: int, length: int) -> int:
        """Keep the first `length` tokens, or fewer where the memory cannot be cut there."""
        held = self.resident(slot)
        if length >= held:
            return held
        keeps_some = self.can_cut and length >= max(1, self._whole_from[slot])
        if not keeps_some:
            if self._rewind(slot, length):
                return self.resident(slot)
            self._anchors[slot].clear()
            self._whole_from[slot] = 0
        self._anchors[slot] = [a for a in self._anchors[slot] if a.position <= length]
        llama.llama_memory_seq_rm(self._memory, slot, length if keeps_some else -1, -1)
        return self.resident(slot)

    def cuts_at(self, position: int) -> bool:
        """Whether the end of slot 0 can be forgotten from there on: tries, and empties it."""
        can_cut = bool(llama.llama_memory_seq_rm(self._memory, 0, position, -1))
        llama.llama_memory_seq_rm(self._memory, 0, -1, -1)
        self.resident(0)
        return can_cut

    def fork(self, source: int, target: int, length: int) -> int:
        """Make `target` hold the first `length` tokens of `source`, or fewer as `trim` says."""
        self.check(source)
        self.check(target)
        if source != target:
            # Stream mode copies whole slots only; a partial range would end the process.
            llama.llama_memory_seq_rm(self._memory, target, -1, -1)
            llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._anchors[target] = list(self._anchors[source])
            self._whole_from[target] = self._whole_from[source]
        return self.trim(target, length)

    def anchor(self, slot: int) -> None:
        """Make the present end of the slot a place to which `trim` can return."""
        held = self.resident(slot)
        if held == 0 or (self.can_cut and not self._windowed):
            return
        others = [a for a in self._anchors[slot] if a.position < held]
        state = np.empty(self._size(slot, _PARTIAL), np.uint8)
        self._copy(slot, state, _PARTIAL)
        # The first place is where others with the same beginning depart: it stays.
        kept = others[:1] + others[1:][-(_MAX_ANCHORS - 2) :]
        self._anchors[slot] = [*kept, _Anchor(held, state)]

    def state_size(self, slot: int) -> int:
        """Bytes that `save` would return."""
        self.check(slot)
        anchors = self._anchors[slot]
        head = _NUMBER.size * (1 + 2 * len(anchors))
        return head + sum(a.state.nbytes for a in anchors) + self._size(slot, 0)

    def save(self, slot: int) -> State:
        """What the slot holds: its anchors (how many; where and how large each is), then all."""
        state = np.empty(self.state_size(slot), np.uint8)
        anchors = self._anchors[slot]
        numbers = [len(anchors)]
        for anchor in anchors:
            numbers += [anchor.position, anchor.state.nbytes]
        parts = [np.array(numbers, np.uint64).view(np.uint8), *(a.state for a in anchors)]
        at = 0
        for part in parts:
            state[at : at + part.nbytes] = part
            at += part.nbytes
        self._copy(slot, state[at:], 0)
        return state

    def restore(self, slot: int, state: State) -> int:
        """Make the slot hold what `save` took; returns how many tokens that are.

        0, and an empty slot, where the state is of a context of another kind.
        """
        self.trim(slot, 0)
        anchors, at = _read_anchors(state)
        whole = state[at:]
        if at and whole.nbytes:
            pointer = np.ascontiguousarray(whole).ctypes.data
            if _set_data(self._context, pointer, whole.nbytes, slot, 0) == whole.nbytes:
                self._anchors[slot] = anchors
                held = self.resident(slot)
                if 0 <= held <= self._num_cells:
                    self._whole_from[slot] = held if self._windowed else 0
                    return held
        # Also where the state said of its tokens that they are where no token can be.
        self._anchors[slot].clear()
        llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return self.resident(slot)

    def _rewind(self, slot: int, length: int) -> bool:
        """Return to the last anchor up to `length`; False where there is none."""
        anchors = [anchor for anchor in self._anchors[slot] if anchor.position <= length]
        if not anchors:
            return False
        self._anchors[slot] = anchors
        last = anchors[-1]
        size = last.state.nbytes
        read = _set_data(self._context, last.state.ctypes.data, size, slot, _PARTIAL)
        self._whole_from[slot] = last.position if self._windowed else 0
        # What sees everything (the attention layers of a hybrid model) is there still, to be cut.
        return bool(
            read == size and llama.llama_memory_seq_rm(self._memory, slot, last.position, -1)
        )

    def _size(self, slot: int, flags: int) -> int:
        return int(_get_size(self._context, slot, flags))

    def _copy(self, slot: int, target: State, flags: int) -> None:
        size = target.nbytes
        copied = int(_get_data(self._context, target.ctypes.data, size, slot, flags))
        if copied != size:
            raise RunnerError(f"slot {slot} gave {copied} bytes of its state instead of {size}")


def _read_anchors(state: State) -> tuple[list[_Anchor], int]:
    """The anchors in front of a state, and where they end; (none, 0) where that makes no sense."""
    if state.nbytes < _NUMBER.size:
        return [], 0
    (count,) = _NUMBER.unpack_from(state.data)
    at = _NUMBER.size * (1 + 2 * count)
    if count > _MAX_ANCHORS or state.nbytes < at:
        return [], 0
    anchors = []
    for n in range(count):
        position, size = _PAIR.unpack_from(state.data, _NUMBER.size * (1 + 2 * n))
        if size > state.nbytes - at:
            return [], 0
        anchors.append(_Anchor(position, state[at : at + size].copy()))
        at += size
    return anchors, at
