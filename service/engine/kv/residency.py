"""What the slots hold: our books, and llama.cpp's, kept equal. Engine thread only."""

from __future__ import annotations

import time
from collections.abc import Callable

from service import log
from service.engine.gauges import Gauges
from service.engine.kv.cache import Cache
from service.engine.kv.parking import MIN_TOKENS, Parked
from service.engine.kv.prefix import Prefix
from service.engine.kv.slots import Placement, Slot, Slots
from service.engine.kv.transcripts import Transcript
from service.engine.order.cost import CostModel
from service.engine.runner import ModelRunner
from service.engine.sequence import Sequence

# What copying a byte of memory takes until it has been measured.
_ASSUMED_SECONDS_PER_BYTE = 1e-9
# A state is copied twice: out of the slot, and back.
_COPIES = 2

_log = log.get_logger(__name__)


class Residency:
    """Trims, forks, parks and restores slots, and writes down what is left in each.

    The runner decides how much it can keep (recurrent memory cannot be cut); it is believed.
    """

    def __init__(
        self,
        runner: ModelRunner,
        slots: Slots,
        gauges: Gauges,
        cost: CostModel,
        cache: Cache,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._slots = slots
        self._gauges = gauges
        self._cost = cost
        self._cache = cache
        self._clock = clock
        self._seconds_per_byte = 0.0

    # --- coming ------------------------------------------------------------------------------
    def prepare(self, placement: Placement, sequence: Sequence) -> None:
        """Make the slot hold the beginning of the prompt that the placement promises."""
        slot, source, length = placement.slot, placement.source, placement.length
        parked = placement.parked
        prompt = sequence.prefix
        origin = source.held if parked is None else parked.prefix
        if length > self._allowed(origin, prompt, parked is not None):
            self._gauges.crossed(length)
            source, length, parked = slot, 0, None
        self._plan_anchors(sequence)
        self._park_before_loss(slot, slot.held.reusable_for(prompt))
        if parked is not None:
            held = self._restore(slot, parked, length)
        elif source is not slot:
            held = self._runner.fork(source.index, slot.index, length)
        else:
            held = self._runner.trim(slot.index, min(length, slot.num_tokens))
        if parked is not None:
            self._cache.holds(slot.index, parked.prefix if parked.is_kept else None)
        elif source is not slot:
            self._cache.holds(slot.index, None)
        self._cache.cut(slot.index, held)
        self._write(slot, sequence, held)
        self._count(placement, held)

    def improve(self, sequence: Sequence) -> None:
        """Before its prompt is read: take more of it from a slot that has got it by now.

        Of equal prompts that come together only the first is read; the others wait their turn,
        and find it there.
        """
        placement = self._slots.better_source(
            sequence.lane, sequence.token_ids, sequence.num_shared
        )
        if placement is not None:
            self.prepare(placement, sequence)
            sequence.reuse(placement.slot.num_tokens)

    def num_until_anchor(self, sequence: Sequence) -> int:
        """How many tokens to read up to the next place that others, or its own next turn, may
        want to return to."""
        ahead = [at for at in sequence.anchors if at > sequence.num_computed]
        return min(ahead, default=len(sequence.token_ids)) - sequence.num_computed

    def anchor(self, sequence: Sequence) -> None:
        """Its slot has been read on: mark the place if it is one to return to."""
        if sequence.num_computed in sequence.anchors:
            self._runner.anchor(sequence.lane.index)

    def resync(self, sequence: Sequence) -> None:
        """A call was cut short: believe llama.cpp on what was read; the rest is read later."""
        slot = sequence.lane
        held = min(self._runner.resident(slot.index), len(sequence.token_ids) - 1)
        self._write(slot, sequence, self._runner.trim(slot.index, held))
        self._cache.cut(slot.index, slot.num_tokens)
        sequence.num_computed = slot.num_tokens
        sequence.num_cached = min(sequence.num_cached, sequence.num_computed)

    def forget_padding(self, slot: Slot) -> None:
        """Take back the row that a free slot got for nothing."""
        slot.num_tokens = self._runner.trim(slot.index, slot.num_tokens)

    # --- going -------------------------------------------------------------------------------
    def remember(self, sequence: Sequence) -> None:
        """It leaves its slot: what was said there is known as tokens when it comes back. Of what
        was shown there is no text to know it by."""
        if sequence.job.seen is not None:
            sequence.lane.transcript = None
            return
        transcript = Transcript(
            sequence.job.submit.prompt,
            sequence.prefix.tokens,
            sequence.num_prompt,
        )
        sequence.lane.transcript = transcript
        self._cache.remember(sequence.cache_key, transcript)

    def clear(self, slot: Slot) -> None:
        """Trust nothing of what is there."""
        slot.num_tokens = self._runner.trim(slot.index, 0)
        self._cache.cut(slot.index, 0)

    def copy_out(self, slot: Slot) -> int | None:
        """A copy on disk of what a free slot holds; its size in bytes, 0 where it is not worth it,
        None where those who are being answered would notice."""
        if slot.num_tokens < MIN_TOKENS or self._cache.has_copy(slot.index, slot.num_tokens):
            return 0
        seconds = self._runner.state_size(slot.index) * self._byte_seconds
        if seconds * _COPIES > self._cost.reading_seconds(slot.num_tokens):
            return 0
        if not self._is_affordable(seconds):
            return None
        parked = self._taken_out(slot)
        self._cache.keep(parked)
        self._cache.holds(slot.index, parked.prefix)
        return parked.size

    def leave(self, seconds: float) -> None:
        """The engine ends: what is worth it goes to disk, the latest first, in so many seconds."""
        until = self._clock() + seconds
        for slot in sorted(self._slots, key=lambda slot: -slot.last_used):
            if self._cache.has_copy(slot.index, slot.num_tokens):
                continue
            if self._clock() < until and slot.num_tokens >= MIN_TOKENS:
                self._cache.keep(self._taken_out(slot))
        self._cache.close(until - self._clock())

    # --- inside ------------------------------------------------------------------------------
    def _plan_anchors(self, sequence: Sequence) -> None:
        """Where a model that cannot be cut is to be marked: where the declared beginning ends, and
        where the last message does. What comes behind, the template may write differently the next
        time."""
        if self._runner.can_cut or sequence.anchors:
            return
        prompt = sequence.token_ids[: sequence.num_prompt - 1]
        ends = [at for at, token_id in enumerate(prompt, 1) if self._runner.is_end(token_id)]
        places = {sequence.num_shared, ends[-1] if ends else len(prompt)}
        sequence.anchors = tuple(sorted(places - {0}))

    def _allowed(self, origin: Prefix, prompt: Prefix, is_parked: bool) -> int:
        """How much of the prompt may come from there: looked at again when it is about to."""
        asking = self._cache.parking.tagged(prompt) if is_parked else prompt
        return origin.reusable_for(asking)

    def _park_before_loss(self, slot: Slot, kept: int) -> None:
        """Only the first `kept` tokens are going to stay; keep all of them if that is worth it."""
        if slot.lost(kept) < MIN_TOKENS or not self._cache.parking.room:
            return
        size = self._runner.state_size(slot.index)
        seconds = size * self._byte_seconds
        if size > self._cache.parking.room or not self._is_affordable(seconds):
            return
        if seconds * _COPIES > self._cost.reading_seconds(slot.num_tokens):
            return
        if not self._cache.parking.covers(slot.held):
            parked = self._taken_out(slot)
            parked.is_kept = self._cache.has_copy(slot.index, slot.num_tokens)
            self._cache.parking.put(parked)

    @property
    def _byte_seconds(self) -> float:
        return self._seconds_per_byte or _ASSUMED_SECONDS_PER_BYTE

    def _is_affordable(self, seconds: float) -> bool:
        """Whether those who are being answered hardly notice that nothing happens for so long."""
        num_running = self._slots.num_slots - self._slots.num_free
        step = self._cost.decode.seconds(num_running) if num_running else 0.0
        return not num_running or seconds + step <= self._cost.inter_token_target

    def _taken_out(self, slot: Slot) -> Parked:
        started = self._clock()
        state = self._runner.save(slot.index)
        measured = (self._clock() - started) / state.nbytes
        before = self._seconds_per_byte or measured
        self._seconds_per_byte = before + (measured - before) / 4
        prefix = self._cache.parking.tagged(slot.held)
        tokens = prefix.tokens.copy()
        return Parked(
            Prefix(tokens, prefix.cache_key, prefix.num_shared),
            state,
            self._cost.reading_seconds(slot.num_tokens),
            slot.transcript,
            since=self._clock(),
        )

    def _restore(self, slot: Slot, parked: Parked, length: int) -> int:
        held = self._runner.restore(slot.index, parked.state)
        if held != len(parked.prefix.tokens):
            _log.warning("parked_state_refused", tier=parked.tier, num_tokens=held)
            self._cache.parking.drop(parked)
            return self._runner.trim(slot.index, 0)
        self._cache.parking.use(parked, length)
        return self._runner.trim(slot.index, length)

    def _write(self, slot: Slot, sequence: Sequence, held: int) -> None:
        slot.cache_key = sequence.cache_key
        slot.num_shared = sequence.num_shared
        slot.transcript = None
        slot.num_tokens = 0
        slot.read(sequence.token_ids[:held])

    def _count(self, placement: Placement, held: int) -> None:
        if not held:
            return
        if placement.parked is not None:
            source = placement.parked.tier
        else:
            source = "slot" if placement.source is placement.slot else "fork"
        self._gauges.reused(source, self._cost.reading_seconds(held))
