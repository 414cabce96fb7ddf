"""Reading prompts: what the model computes for a sequence before its first token."""

from __future__ import annotations

from collections.abc import Callable

from service.engine.endings import Endings
from service.engine.parts import Parts
from service.engine.runner import DecodeAborted, PrefillPart, RunnerError
from service.engine.sequence import Key


class Reading:
    """A chunk of one prompt at a time, without logits: its last token is left to a decode step."""

    def __init__(self, parts: Parts, endings: Endings) -> None:
        self._parts = parts
        self._endings = endings
        self._reader: Key | None = None

    def abort(self, concerns: Callable[[Key], bool]) -> None:
        """Cut short the prompt that is being read if it is one that `concerns` nobody any more.

        Any thread. A call is never shared between prompts, so nobody else loses work.
        """
        reader = self._reader
        if reader is not None and concerns(reader):
            self._parts.runner.abort()

    def step(self) -> None:
        """The next chunk of the prompt whose turn it is; nothing when all have been read."""
        parts = self._parts
        sequence = parts.scheduler.reader()
        if sequence is None:
            return
        if not sequence.begun:
            parts.residency.improve(sequence)
        count = parts.scheduler.num_to_read(sequence)
        if not count:
            return
        slot = sequence.lane
        start = sequence.num_computed
        token_ids = sequence.token_ids[start : start + count]
        started = parts.clock()
        self._reader = sequence.job.key
        try:
            parts.runner.prefill([PrefillPart(slot.index, start, token_ids)])
        except DecodeAborted:
            parts.residency.resync(sequence)
            return
        except RunnerError as error:
            self._endings.fail([sequence], error)
            return
        finally:
            self._reader = None
        seconds = parts.clock() - started
        slot.read(token_ids)
        sequence.num_computed += count
        parts.cost.prefill.observe(count, seconds)
        parts.gauges.prefilled(count, seconds)
