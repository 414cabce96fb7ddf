"""What the slots hold: our books, and llama.cpp's, kept equal. Engine thread only."""

from __future__ import annotations

from service.engine.gauges import Gauges
from service.engine.runner import ModelRunner
from service.engine.sequence import Sequence
from service.engine.slots import Placement, Slot, Slots


class Residency:
    """Trims, forks and clears lanes, and writes down what is left in each.

    The runner decides how much it can keep (recurrent memory cannot be cut); it is believed.
    """

    def __init__(self, runner: ModelRunner, slots: Slots, gauges: Gauges) -> None:
        self._runner = runner
        self._slots = slots
        self._gauges = gauges

    def prepare(self, placement: Placement, sequence: Sequence) -> None:
        """Make the slot hold the beginning of the prompt that the placement promises."""
        slot, source, length = placement.slot, placement.source, placement.length
        if length and source.cache_key != sequence.cache_key:
            self._gauges.crossed(length)
            source, length = slot, 0
        if source is not slot:
            held = self._runner.fork(source.index, slot.index, length)
        elif slot.num_tokens > length:
            held = self._runner.trim(slot.index, length)
        else:
            held = length
        slot.cache_key = sequence.cache_key
        self._write(slot, sequence, held)

    def improve(self, sequence: Sequence) -> None:
        """Before its prompt is read: take more of it from a slot that has got it by now.

        Of equal prompts that come together only the first is read; the others wait their turn,
        and find it there.
        """
        placement = self._slots.better_source(sequence.lane, sequence.token_ids)
        if placement is not None:
            self.prepare(placement, sequence)
            sequence.reuse(placement.slot.num_tokens)

    def resync(self, sequence: Sequence) -> None:
        """A call was cut short: believe llama.cpp on what was read; the rest is read later."""
        slot = sequence.lane
        held = min(self._runner.resident(slot.index), len(sequence.token_ids) - 1)
        self._write(slot, sequence, self._runner.trim(slot.index, held))
        sequence.num_computed = slot.num_tokens
        sequence.num_cached = min(sequence.num_cached, sequence.num_computed)

    def forget_padding(self, slot: Slot) -> None:
        """Take back the row that a free slot got for nothing."""
        slot.num_tokens = self._runner.trim(slot.index, slot.num_tokens)

    def clear(self, slot: Slot) -> None:
        """Trust nothing of what is there."""
        slot.num_tokens = self._runner.trim(slot.index, 0)

    def _write(self, slot: Slot, sequence: Sequence, held: int) -> None:
        slot.num_tokens = 0
        slot.read(sequence.token_ids[:held])
