"""The model runner on llama.cpp.

Stream mode (`kv_unified=False`): one llama.cpp sequence id is one slot of fixed length, so that
no conversation can slow down another or make it fail. llama.cpp answers many mistakes by ending
the process; everything it would abort on is checked here first and raised as `RunnerError`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from service.domain.chat import Prompt
from service.domain.constraint import Constraint
from service.domain.events import TokenLogprob
from service.domain.sampling import Sampling
from service.engine import library
from service.engine.adapters import LoraFile, adapted, apply
from service.engine.batch import Batch, compute
from service.engine.description import describe
from service.engine.grammar.alphabet import create_alphabet, special_names
from service.engine.grammar.grammars import Grammars
from service.engine.grammar.trial import Trial
from service.engine.kernels import Kernels
from service.engine.kv.cells import Cells
from service.engine.kv.fingerprint import fingerprint_of, print_of
from service.engine.planning import backends
from service.engine.planning.loading import LoadedModel
from service.engine.planning.memory import Sizes
from service.engine.planning.records import Records
from service.engine.planning.starting import prepare
from service.engine.planning.tuning import Tuning, num_outputs
from service.engine.runner import (
    DecodeAborted,
    DecodeRow,
    Drafter,
    Matcher,
    PrefillPart,
    RunnerError,
    Sampler,
    Spelling,
    State,
)
from service.engine.sampling.candidates import Row
from service.engine.sampling.logprobs import logprob_of
from service.engine.sampling.on_card import Best, BestSampler, CardCandidates, is_among_best
from service.engine.sampling.sampler import RowSampler
from service.engine.vocabulary import Vocabulary
from service.settings import EngineSettings

_get_logits = library.function("llama_get_logits", ctypes.c_void_p, ctypes.c_void_p)

# Few, because they take as long as a real prompt; what counts is that memory has been touched.
_WARM_UP_TOKENS = 16

# Tokens of a row that are looked at, where only the likeliest are: more than anybody's top-k.
NUM_BEST = 128


def create_runner(
    settings: EngineSettings,
    model_path: Path,
    model_name: str,
    on_progress: Callable[[float], None],
    records: Records | None = None,
    adapters: Sequence[LoraFile] = (),
) -> LlamaRunner:
    """Load a model, with its adapters, and make its context. Raises `ModelFileError` with one
    sentence.

    `on_progress` hears the loaded share, 0 to 1, in the calling thread. Without `records` nothing
    is remembered, and how the model is best computed is assumed rather than measured.
    """
    with ExitStack() as owned:
        start = prepare(settings, model_path, on_progress, records, owned)
        fitting = settings.model_copy(update={"slots": start.sizes.slots})
        runner = LlamaRunner(start.model, start.context, fitting, model_name)
        runner.computes_as(start.tuning, start.buffer_bytes)
        runner.drafter = start.drafter
        if adapters:
            apply(start.model.pointer, start.context, adapters)
            runner.adapted_by(adapters)
        runner.notice, runner.degraded = start.notice, start.degraded
        runner.owns(owned.pop_all())
    return runner


class LlamaRunner:
    """See `ModelRunner` for the contract. Owns the model and its context."""

    def __init__(
        self, model: LoadedModel, context: Any, settings: EngineSettings, name: str
    ) -> None:
        self._closing = ExitStack()
        self._kernels = Kernels(context)
        self.drafter: Drafter | None = None
        self.notice: str | None = None
        self.degraded: str | None = None
        self._vocabulary = Vocabulary(model.vocab, max_prompt_bytes=settings.max_prompt_bytes)
        self._grammars = Grammars(
            lambda: create_alphabet(self._vocabulary), Trial(special_names(self._vocabulary))
        )
        self._context = context
        self._abort = library.AbortFlag(context)
        self.num_slots = settings.slots
        self.max_batch_tokens = int(llama.llama_n_batch(context))
        self._num_outputs = min(self.max_batch_tokens, num_outputs(self.num_slots))
        self._speculates = settings.speculation
        self._num_cells = int(llama.llama_n_ctx_seq(context))
        self.slot_length = min(self._num_cells, model.trained_context_length)
        self._batch = Batch(self.max_batch_tokens)
        self._card: CardCandidates | None = None
        if backends.on_card(settings, settings.gpu_sampling):
            self._card = CardCandidates(context, self.num_slots, NUM_BEST)
        self.pads_batches = backends.on_card(settings, settings.gpu_padding)
        self._windowed = model.window > 0
        self._cells = Cells(context, self.num_slots, windowed=self._windowed)
        self._held = self._cells.held
        self._num_rows = 0
        self._row_slots: list[int] = []
        self._row_places: Sequence[int] = ()
        self._logits_at = 0
        self._logits: NDArray[np.float32] = np.empty((0, self._vocabulary.size), np.float32)
        slots = Sizes(self.num_slots, self.slot_length)
        self.info = describe(model, self._vocabulary, name, slots)
        self._cells.can_cut = self._probe_cut()
        self._model_print = print_of(model.path)
        self.model, self.row_width = model.pointer, int(llama.llama_model_n_embd(model.pointer))

    def owns(self, resources: ExitStack) -> None:
        """Close these with the runner."""
        self._closing = resources

    def adapted_by(self, adapters: Sequence[LoraFile]) -> None:
        """It is another model with them: to clients, and to what was kept of it."""
        self.info = adapted(self.info, adapters)
        self._model_print = fingerprint_of(self._model_print, *(a.identity for a in adapters))

    def computes_as(self, tuning: Tuning, buffer_bytes: int = 0) -> None:
        """With these kernels, working in so many bytes."""
        self._kernels.adopt(tuning, buffer_bytes)

    @property
    def bulk_rows(self) -> int | None:
        """The fewest tokens in one call for which BLAS pays."""
        return self._kernels.tuning.blas_from

    @property
    def can_cut(self) -> bool:
        return self._cells.can_cut and not self._windowed

    @property
    def max_draft(self) -> int:
        return self._num_outputs - 1 if self._speculates and self._cells.can_cut else 0

    @property
    def spelling(self) -> Spelling:
        return self._vocabulary

    @property
    def fingerprint(self) -> str:
        """Of the model, of llama.cpp, and of all that decides how a state is laid out."""
        attention = self._kernels.tuning.flash_attention
        return fingerprint_of(self._model_print, self.num_slots, attention)

    # --- text ---------------------------------------------------------------------------------

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._vocabulary.tokenize(prompt)

    def is_end(self, token_id: int) -> bool:
        return token_id in self._vocabulary.ends

    def piece(self, token_id: int) -> bytes:
        return self._vocabulary.pieces.of(token_id)

    # --- steps --------------------------------------------------------------------------------

    def prefill(self, parts: Sequence[PrefillPart]) -> None:
        self._check_parts(parts)
        self._abort.lower()
        self._kernels.for_prompts(parts)
        self._read(parts)

    def decode(self, rows: Sequence[DecodeRow]) -> None:
        slots, positions, token_ids, previous, ahead = [], [], [], -1, 0
        if len(rows) > self._num_outputs:
            raise RunnerError(f"{len(rows)} rows in one call; at most {self._num_outputs} fit")
        for row in rows:
            ahead = ahead + 1 if row.slot == previous else 0
            if ahead:
                self._check_draft(row, ahead)
            else:
                self._check_place(row.slot, row.position, 1, previous)
            slots.append(previous := row.slot)
            positions.append(row.position)
            token_ids.append(row.token_id)
        self._check_tokens(token_ids)
        self._abort.lower()
        self._kernels.for_steps(rows)
        count = len(slots)
        self._batch.token[:count] = token_ids
        self._batch.position[:count] = positions
        self._batch.sequence[:count] = slots
        self._run(count, slots, slice(count))
        for slot in slots:
            self._held[slot] += 1
        self._take_logits(slots, range(count))

    def warm_up(self) -> None:
        """Touch all weights and run the shapes of the first requests, so that they don't pay."""
        chunk = min(_WARM_UP_TOKENS, self.max_batch_tokens, self.slot_length - 1)
        text = PrefillPart(0, 0, self._ordinary_tokens(chunk), end=True)

        def read() -> Row:
            self._read([text])
            return self._row(0)

        self.prefill([text])
        fused = self._row(0).copy() if self._kernels.chooses else None
        # Read again at once, the text would take over the graph of the first time.
        self.decode([DecodeRow(0, chunk, text.token_ids[0])])
        self.trim(0, 0)
        if fused is not None:
            self._kernels.prove(fused, read)
            self.trim(0, 0)
        self.decode([DecodeRow(slot, 0, text.token_ids[0]) for slot in range(self.num_slots)])
        for slot in range(self.num_slots):
            self.trim(slot, 0)

    def create_matcher(self, constraint: Constraint) -> Matcher:
        return self._grammars.create_matcher(constraint)

    def create_sampler(
        self, sampling: Sampling, prompt_tail: Sequence[int], matcher: Matcher | None = None
    ) -> Sampler:
        if self._card and matcher is None and is_among_best(sampling, self._vocabulary, NUM_BEST):
            return BestSampler(sampling, self._best)
        return RowSampler(
            sampling, self._row, self._vocabulary, prompt_tail=prompt_tail, matcher=matcher
        )

    def takes_rows(self, slot: int, *, whole: bool) -> None:
        if self._card is not None:
            self._card.whole(slot, whole)

    def logprob(self, row: int, token_id: int, num_top: int) -> TokenLogprob:
        return logprob_of(self._row(row), token_id, num_top, self._vocabulary.spell)

    # --- slots --------------------------------------------------------------------------------

    def resident(self, slot: int) -> int:
        return self._cells.resident(slot)

    def trim(self, slot: int, length: int) -> int:
        return self._cells.trim(slot, length)

    def fork(self, source: int, target: int, length: int) -> int:
        return self._cells.fork(source, target, length)

    def anchor(self, slot: int) -> None:
        self._cells.anchor(slot)

    def state_size(self, slot: int) -> int:
        return self._cells.state_size(slot)

    def save(self, slot: int) -> State:
        return self._cells.save(slot)

    def restore(self, slot: int, state: State) -> int:
        return self._cells.restore(slot, state)

    def abort(self) -> None:
        self._abort.raise_()

    def close(self) -> None:
        self._num_rows = 0
        if self._card is not None:
            self._card.close()
        self._grammars.close()
        self._closing.close()

    # --- inside -------------------------------------------------------------------------------

    def _check_place(self, slot: int, start: int, count: int, previous: int) -> None:
        """Refuse what llama.cpp would abort on, or fail the whole batch for."""
        self._cells.check(slot)
        if slot <= previous:
            raise RunnerError(f"slot {slot} comes after slot {previous}; slots must ascend")
        if start != self._held[slot]:
            raise RunnerError(
                f"slot {slot} holds {self._held[slot]} tokens; cannot continue at {start}"
            )
        if not 0 < count <= self._num_cells - start:
            raise RunnerError(
                f"slot {slot} has room for {self._num_cells - start} tokens, not for {count}"
            )

    def _check_draft(self, row: DecodeRow, ahead: int) -> None:
        """Refuse a guess that does not follow the one before, or has no room."""
        place = self._held[row.slot] + ahead
        if row.position != place or place >= self._num_cells:
            raise RunnerError(
                f"a guess for slot {row.slot} at {row.position}; the next place is {place} of "
                f"{self._num_cells}"
            )

    def _check_parts(self, parts: Sequence[PrefillPart]) -> None:
        previous = -1
        for part in parts:
            self._check_place(part.slot, part.start, len(part.token_ids), previous)
            if part.rows is None:
                self._check_tokens(part.token_ids)
            previous = part.slot
        total = sum(len(part.token_ids) for part in parts)
        if not total:
            raise RunnerError("an empty batch")
        if total > self.max_batch_tokens:
            raise RunnerError(f"{total} tokens in one call; at most {self.max_batch_tokens} fit")

    def _check_tokens(self, token_ids: Sequence[int]) -> None:
        if not token_ids:
            raise RunnerError("an empty batch")
        least, most = min(token_ids), max(token_ids)
        if least < 0 or most >= self._vocabulary.size:
            raise RunnerError(
                f"token ids {least} to {most}; the model has 0 to {self._vocabulary.size - 1}"
            )

    def _read(self, parts: Sequence[PrefillPart]) -> None:
        for part in parts:
            if part.rows is not None:  # llama.cpp reads rows or tokens in one call, not both
                self._submit(
                    self._batch.of_rows(part, self.row_width), len(part.token_ids), [part.slot]
                )
                self._held[part.slot] += len(part.token_ids)
        spoken = [part for part in parts if part.rows is None]
        if not spoken:
            return
        count, ends = self._batch.take(spoken)
        self._run(count, [part.slot for part in spoken], [*ends])
        for part in spoken:
            self._held[part.slot] += len(part.token_ids)
        if ends:
            self._take_logits([*ends.values()], [*ends])

    def _run(self, count: int, slots: Sequence[int], outputs: slice | list[int]) -> None:
        self._submit(self._batch.close(count, outputs=outputs), count, slots)

    def _submit(self, batch: Any, count: int, slots: Sequence[int]) -> None:
        self._num_rows = 0
        try:
            compute(self._context, batch, count)
        except (DecodeAborted, RunnerError):
            for slot in slots:
                self._cells.resident(slot)
            raise

    def _take_logits(self, slots: list[int], places: Sequence[int]) -> None:
        """Map the rows of this call, for `slots`, which were at `places` of the batch. The buffer
        can move from one call to the next."""
        address = _get_logits(self._context)
        if address != self._logits_at:
            size = self._num_outputs * self._vocabulary.size
            flat = np.ctypeslib.as_array((ctypes.c_float * size).from_address(address))
            self._logits = flat.reshape(self._num_outputs, self._vocabulary.size)
            self._logits_at = address
        self._num_rows, self._row_slots, self._row_places = len(slots), slots, places

    def _row(self, row: int) -> Row:
        if not 0 <= row < self._num_rows:
            raise RunnerError(f"row {row} was not decoded; there are {self._num_rows} rows")
        if self._card is not None and self._card.finds(self._row_slots[row]):
            raise RunnerError(f"row {row} came as its best tokens only")
        logits: Row = self._logits[row]
        return logits

    def _best(self, row: int) -> Best:
        if self._card is None or not self._card.finds(self._row_slots[row]):
            return None, self._row(row)
        return self._card.best(self._row_places[row])

    def _ordinary_tokens(self, count: int) -> list[int]:
        """From all over the vocabulary, no ends among them."""
        size = self._vocabulary.size
        ids = (i for i in range(0, size, max(1, size // (4 * count))) if not self.is_end(i))
        return list(islice(cycle(ids), count))

    def _probe_cut(self) -> bool:
        """Whether the end of a slot can be forgotten; recurrent memory can only be emptied."""
        self.prefill([PrefillPart(0, 0, self._ordinary_tokens(2))])
        return self._cells.cuts_at(1)
