"""A small model in the same process that goes ahead of the large one, slot by slot."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from service.domain.errors import ModelFileError
from service.engine import library
from service.engine.batch import BLAS_ROWS, Batch
from service.engine.kv.cells import Cells
from service.engine.kv.prefix import Prefix
from service.engine.planning.loading import (
    LoadedModel,
    draft_sizes,
    load_model,
    load_vocabulary,
    open_context,
)
from service.engine.planning.memory import Sizes
from service.engine.planning.tuning import TINY_WEIGHT_BYTES, Tuning
from service.engine.runner import RunnerError
from service.settings import EngineSettings

# Sizes of one model family round their vocabulary up to different numbers, with tokens that
# nobody writes.
_MOST_FILLERS = 128

_decode = library.function("llama_decode", ctypes.c_int32, ctypes.c_void_p, llama.llama_batch)
_get_logits = library.function(
    "llama_get_logits_ith", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
)


@dataclass(slots=True)
class _Lane:
    """What one slot of the small model's own context holds, and under which cache key."""

    tokens: list[int] = field(default_factory=list)
    cache_key: str = ""


class DraftModel:
    """See `Drafter` for the contract. Its context has a lane for each slot of the large model's."""

    def __init__(self, model: LoadedModel, context: Any, sizes: Sizes, tuning: Tuning) -> None:
        self._context = context
        self._num_cells = sizes.cells
        self._vocabulary_size = int(llama.llama_vocab_n_tokens(model.vocab))
        self._batch = Batch(int(llama.llama_n_batch(context)))
        # Where OpenBLAS is in use, it would take over from here.
        self._most_rows = len(self._batch.token) if tuning.blas_from is None else BLAS_ROWS - 1
        self._cells = Cells(context, sizes.slots)
        self._lanes = [_Lane() for _ in range(sizes.slots)]
        self._cells.can_cut = self._probe_cut()

    def warm_up(self) -> None:
        """Touch its weights and run its shapes, so that its first guesses tell what they cost."""
        self.read(0, [0] * min(16, self._most_rows, self._num_cells // 2))
        self.guess(0, [0], 2)
        self._keep(0, 0)

    @property
    def can_cut(self) -> bool:
        """Whether it can forget what it guessed wrong; one that can't is of no use."""
        return self._cells.can_cut

    def unread(self, slot: int, prefix: Prefix) -> int:
        """See `Drafter`."""
        if not self._fits(prefix):
            return len(prefix.tokens)
        lane = self._lanes[slot]
        held = Prefix(np.array(lane.tokens, np.int32), lane.cache_key)
        kept = held.reusable_for(Prefix(prefix.tokens, prefix.cache_key))
        lane.cache_key = prefix.cache_key
        self._keep(slot, kept)
        return len(prefix.tokens) - kept

    def read(self, slot: int, token_ids: Sequence[int]) -> None:
        """See `Drafter`."""
        for at in range(0, len(token_ids), self._most_rows):
            self._run(slot, token_ids[at : at + self._most_rows])

    def guess(self, slot: int, token_ids: Sequence[int], length: int) -> list[int]:
        """See `Drafter`."""
        lane = self._lanes[slot]
        start = len(lane.tokens)
        length = min(length, self._num_cells - start - len(token_ids) + 1)
        guesses: list[int] = []
        following: Sequence[int] = token_ids
        while len(guesses) < length:
            logits = self._run(slot, following, wants_logits=True)
            guesses.append(int(logits.argmax()))
            following = guesses[-1:]
        return guesses

    def took(self, slot: int, num_tokens: int) -> None:
        """See `Drafter`."""
        self._keep(slot, min(num_tokens, len(self._lanes[slot].tokens)))

    # --- inside -------------------------------------------------------------------------------

    def _fits(self, prefix: Prefix) -> bool:
        tokens = prefix.tokens
        return len(tokens) < self._num_cells and int(tokens.max()) < self._vocabulary_size

    def _keep(self, slot: int, length: int) -> None:
        kept = self._cells.trim(slot, length)
        del self._lanes[slot].tokens[kept:]

    def _run(
        self, slot: int, token_ids: Sequence[int], *, wants_logits: bool = False
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Read these; the logits behind the last of them, or none."""
        lane, count = self._lanes[slot], len(token_ids)
        start = len(lane.tokens)
        self._batch.token[:count] = token_ids
        self._batch.position[:count] = range(start, start + count)
        self._batch.sequence[:count] = slot
        struct = self._batch.close(count, outputs=False)
        self._batch.output[count - 1] = wants_logits
        answer = _decode(self._context, struct)
        if answer != 0:
            self._keep(slot, 0)
            raise RunnerError(f"the draft model refused {count} tokens ({answer})")
        lane.tokens += token_ids
        if not wants_logits:
            return np.empty(0, np.float32)
        address = _get_logits(self._context, count - 1)
        row = (ctypes.c_float * self._vocabulary_size).from_address(address)
        return np.ctypeslib.as_array(row)

    def _probe_cut(self) -> bool:
        self._run(0, [0, 0])
        self._lanes[0].tokens.clear()
        return self._cells.cuts_at(1)


def open_draft(
    settings: EngineSettings, sizes: Sizes, tuning: Tuning, owned: ExitStack
) -> DraftModel | None:
    """The model that `settings.draft_model` names, ready to go ahead of one that runs with these
    sizes and this tuning; None without. `check_draft` comes before.

    Closed by `owned`. Raises `ModelFileError` with one sentence.
    """
    if settings.draft_model is None:
        return None
    path = Path(settings.draft_model)
    model = load_model(path, settings, lambda _share: None)
    owned.callback(model.close)
    threads = 1 if model.size_bytes < TINY_WEIGHT_BYTES else tuning.decode_threads
    own_tuning = Tuning(threads, threads, tuning.ubatch, tuning.flash_attention, tuning.blas_from)
    own_sizes = draft_sizes(sizes, model.trained_context_length)
    context = open_context(model, settings, own_sizes, own_tuning)
    owned.callback(llama.llama_free, context)
    draft = DraftModel(model, context, own_sizes, own_tuning)
    draft.warm_up()
    if model.window > 0 or not draft.can_cut:
        raise ModelFileError(
            f"PARLEY_ENGINE__DRAFT_MODEL: {path} can't forget what it guessed wrong (its memory is "
            "recurrent, or a sliding window); choose a draft model with plain attention."
        )
    return draft


def check_draft(target: Path, draft: Path) -> None:
    """Raises `ModelFileError` where `draft` can't go ahead of `target`: another vocabulary, or not
    a model at all. Reads the vocabularies only."""
    with ExitStack() as closing:
        models = []
        for path in (target, draft):
            model = load_vocabulary(path)
            closing.callback(model.close)
            models.append(model)
        _require_same_vocabulary(*models)


def _require_same_vocabulary(target: LoadedModel, draft: LoadedModel) -> None:
    reason = _difference(target.vocab, draft.vocab)
    if reason:
        raise ModelFileError(
            f"PARLEY_ENGINE__DRAFT_MODEL: {draft.path} has another vocabulary than {target.path} "
            f"({reason}); choose a small model of the same family, or none."
        )


def _difference(target: Any, draft: Any) -> str:
    """What tells two vocabularies apart; empty where they are one, but for fillers at the end."""
    sizes = [int(llama.llama_vocab_n_tokens(vocab)) for vocab in (target, draft)]
    if abs(sizes[0] - sizes[1]) > _MOST_FILLERS:
        return f"{sizes[1]} tokens instead of {sizes[0]}"
    text_of = library.function(
        "llama_vocab_get_text", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32, keep_gil=True
    )
    for token_id in range(min(sizes)):
        ours, theirs = text_of(target, token_id), text_of(draft, token_id)
        if ours != theirs:
            said = [(text or b"").decode("utf-8", "replace") for text in (theirs, ours)]
            return f"its token {token_id} is {said[0]!r} instead of {said[1]!r}"
    return ""
