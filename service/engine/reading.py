"""Reading prompts: what the model computes for a sequence before its first token."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several

from service.engine.endings import Endings
from service.engine.following import Following
from service.engine.order import reading_order
from service.engine.order.reading_order import Chunk
from service.engine.parts import Parts
from service.engine.runner import DecodeAborted, PrefillPart, RunnerError
from service.engine.sequence import Key, Sequence


class Reading:
    """One call at a time; where it ends a prompt, the first token follows from it."""

    def __init__(self, parts: Parts, endings: Endings) -> None:
        self._parts = parts
        self._endings = endings
        self._following = Following(parts, endings)
        self._wanted: set[Key] = set()

    def abort(self, concerns: Callable[[Key], bool]) -> None:
        """Cut short the call at hand once it is for nobody but those it `concerns`.

        The IO thread. Where a call is shared, the others do not lose their work for one of them.
        """
        wanted = self._wanted
        gone = {key for key in wanted.copy() if concerns(key)}
        wanted -= gone
        if gone and not wanted:
            self._parts.runner.abort()

    def step(self) -> None:
        """The next call for the prompts whose turn it is; nothing when all have been read."""
        scheduler = self._parts.scheduler
        ordered = reading_order.in_order(scheduler)
        self._improve(ordered[:1])
        chunks = reading_order.next_call(scheduler, ordered)
        while len(chunks) > 1 and self._improve([chunk.sequence for chunk in chunks]):
            chunks = reading_order.next_call(scheduler, ordered)
        if chunks:
            self._read(chunks)

    def _improve(self, sequences: Several[Sequence]) -> bool:
        """Let those that have not begun copy what others have read by now; whether any could."""
        before = sum(sequence.num_computed for sequence in sequences)
        for sequence in sequences:
            if not sequence.begun:
                self._parts.residency.improve(sequence)
        return sum(sequence.num_computed for sequence in sequences) != before

    def _read(self, chunks: list[Chunk]) -> None:
        """Read `chunks`, which ascend by slot, in one call."""
        parts = self._parts
        sequences = [chunk.sequence for chunk in chunks]
        calls = [self._to_part(chunk) for chunk in chunks]
        started = parts.clock()
        self._wanted = {sequence.job.key for sequence in sequences}
        try:
            parts.runner.prefill(calls)
        except DecodeAborted:
            for sequence in sequences:
                parts.residency.resync(sequence)
            return
        except RunnerError as error:
            self._endings.fail(sequences, error)
            return
        finally:
            self._wanted = set()
        seconds = parts.clock() - started
        for sequence, part in zip(sequences, calls, strict=True):
            sequence.lane.read(part.token_ids)
            sequence.num_computed += len(part.token_ids)
            parts.scheduler.shares.charge(sequence, len(part.token_ids))
            parts.residency.anchor(sequence)
        count = sum(len(part.token_ids) for part in calls)
        parts.cost.read(count, sum(part.start for part in calls) / len(calls), seconds)
        parts.gauges.prefilled(count, seconds)
        self._begin([s for s, part in zip(sequences, calls, strict=True) if part.end])

    def _begin(self, sequences: Several[Sequence]) -> None:
        """Their prompts have been read to the end: each gets its first token."""
        parts = self._parts
        choices = [self._following.choose(s, row) for row, s in enumerate(sequences)]
        now = parts.clock()
        parts.scheduler.decoded(sequences)
        for sequence, choice in zip(sequences, choices, strict=True):
            parts.gauges.one_more(now)
            self._following.take(sequence, choice, now)

    def _to_part(self, chunk: Chunk) -> PrefillPart:
        sequence = chunk.sequence
        start = sequence.num_computed
        count = min(chunk.count, self._parts.residency.num_until_anchor(sequence))
        rows = None
        if sequence.job.seen is not None:
            count, rows = sequence.job.seen.stretch(start, count)
        token_ids = sequence.token_ids[start : start + count]
        end = start + count == len(sequence.token_ids)
        return PrefillPart(sequence.lane.index, start, token_ids, end, rows)
