"""The one `llama_batch` of a runner, filled through numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from service.engine import library
from service.engine.runner import DecodeAborted, PrefillPart, RunnerError

_decode = library.function("llama_decode", ctypes.c_int32, ctypes.c_void_p, llama.llama_batch)

# llama_decode's answers.
_DONE, _NO_ROOM, _ABORTED, _INVALID = 0, 1, 2, -1

# Calls of this many rows and more go through BLAS, which no decoding can afford.
BLAS_ROWS = 32

Int32s = NDArray[np.int32]


class Batch:
    """Room for `capacity` tokens, each belonging to one sequence.

    The arrays are numpy's own and the C struct points into them: filling 512 tokens takes 2 µs,
    against 300 µs attribute by attribute. It must live as long as a decode uses `struct`.
    """

    def __init__(self, capacity: int) -> None:
        self.token: Int32s = np.zeros(capacity, np.int32)
        self.position: Int32s = np.zeros(capacity, np.int32)
        self.sequence: Int32s = np.zeros(capacity, np.int32)
        self.output: NDArray[np.int8] = np.zeros(capacity, np.int8)
        self._num_sequences: Int32s = np.ones(capacity, np.int32)
        each = self.sequence.itemsize * np.arange(capacity, dtype=np.uint64)
        self._sequence_pointers = np.uint64(self.sequence.ctypes.data) + each
        self.struct = llama.llama_batch(
            n_tokens=0,
            token=_pointer(self.token, ctypes.c_int32),
            embd=None,
            pos=_pointer(self.position, ctypes.c_int32),
            n_seq_id=_pointer(self._num_sequences, ctypes.c_int32),
            seq_id=_pointer(self._sequence_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self.output, ctypes.c_int8),
        )

    def take(self, parts: Sequence[PrefillPart]) -> tuple[int, dict[int, int]]:
        """Fill it with these. Returns how many tokens they are, and the slots of those that end a
        prompt, by the places of their last tokens."""
        at, ends = 0, {}
        for part in parts:
            count = len(part.token_ids)
            stop = at + count
            self.token[at:stop] = part.token_ids
            self.position[at:stop] = range(part.start, part.start + count)
            self.sequence[at:stop] = part.slot
            at = stop
            if part.end:
                ends[stop - 1] = part.slot
        return at, ends

    def of_rows(self, part: PrefillPart, width: int) -> Any:
        """The struct for what a part shows, which must live as long as it is used. Raises
        `RunnerError` where the rows don't fit the places."""
        count = len(part.token_ids)
        if part.rows is None or part.rows.shape != (count, width):
            shape = None if part.rows is None else part.rows.shape
            raise RunnerError(f"rows of {shape} for {count} places; each must have {width} numbers")
        self.position[:count] = range(part.start, part.start + count)
        self.sequence[:count] = part.slot
        self.output[:count] = False
        return llama.llama_batch(
            n_tokens=count,
            token=None,
            embd=_pointer(np.ascontiguousarray(part.rows), ctypes.c_float),
            pos=self.struct.pos,
            n_seq_id=self.struct.n_seq_id,
            seq_id=self.struct.seq_id,
            logits=self.struct.logits,
        )

    def close(self, num_tokens: int, *, outputs: bool | slice | list[int]) -> Any:
        """The struct for the first `num_tokens` entries; `outputs` wants logits of each, or of
        some."""
        self.output[:num_tokens] = outputs is True
        if not isinstance(outputs, bool):
            self.output[outputs] = True
        self.struct.n_tokens = num_tokens
        return self.struct


def compute(context: Any, batch: Any, count: int) -> None:
    """Let llama.cpp compute a batch of so many tokens. Raises `DecodeAborted`, `RunnerError`."""
    answer = _decode(context, batch)
    if answer == _DONE:
        return
    if answer == _ABORTED:
        raise DecodeAborted(f"{count} tokens were being read")
    meaning = {_NO_ROOM: "no room in a slot", _INVALID: "an invalid batch"}
    raise RunnerError(
        f"llama.cpp refused {count} tokens: {meaning.get(answer, 'it failed')} ({answer})",
        fatal=answer not in meaning,
    )


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
