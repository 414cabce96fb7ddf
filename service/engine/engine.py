"""The loop that owns the model: receive, admit, decode, read prompts, report.

One thread runs it and is the only one that touches the runner (but for `tokenize` and `abort`).
What to do next is decided in scheduler.py and slots.py; it is done in reading.py and decoding.py.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import suppress

from service import log
from service.domain.errors import GenerationFailed, ServiceError
from service.domain.events import FinishReason
from service.engine.acceptance import create_sequence
from service.engine.decoding import Decoding
from service.engine.endings import Endings
from service.engine.gauges import Gauges
from service.engine.inbox import (
    Arrived,
    Cancelled,
    Command,
    Disconnected,
    Drain,
    Inbox,
    Outbox,
    Tokenized,
    refusal,
)
from service.engine.kv.cache import Cache, create_cache
from service.engine.kv.keeping import Keeping
from service.engine.kv.residency import Residency
from service.engine.kv.slots import Placement, Slots
from service.engine.order.cost import CostModel
from service.engine.order.scheduler import Scheduler
from service.engine.parts import Parts
from service.engine.patience import Patience
from service.engine.progress import Progress
from service.engine.reading import Reading
from service.engine.runner import ModelRunner, RunnerError
from service.engine.sequence import Job, Key, Sequence
from service.ipc.messages import Accepted
from service.settings import EngineSettings

EXIT_DRAINED = 0
EXIT_BROKEN = 70
_PUBLISH_SECONDS = 0.5
# To take conversations out of the slots and onto disk, at the end.
_LEAST_SECONDS_TO_LEAVE, _MOST_SECONDS_TO_LEAVE = 2.0, 10.0

_log = log.get_logger(__name__)


class Engine:
    """One model's work, in order. `run` in its own thread; commands come through `inbox`."""

    def __init__(
        self,
        runner: ModelRunner,
        outbox: Outbox,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
        cache: Cache | None = None,
    ) -> None:
        self.runner = runner
        self.cache = cache or create_cache(runner, settings)
        self.inbox: Inbox = Inbox()
        self.slots = Slots(runner.num_slots, runner.slot_length, self.cache.parking)
        self.cost = CostModel(
            settings.inter_token_target_seconds, runner.max_batch_tokens, runner.bulk_rows
        )
        self.scheduler = Scheduler(self.slots, self.cost, settings.max_waiting)
        self.gauges = Gauges(runner.info.name)
        # Prompts that may be with the tokenizer: as many as could be running or waiting.
        self.max_backlog = settings.max_waiting + runner.num_slots
        self.turn_started = 0.0
        self._residency = Residency(runner, self.slots, self.gauges, self.cost, self.cache, clock)
        self._keeping = Keeping(
            self.slots, self._residency, self.cache, settings.park_after_seconds, clock
        )
        self._progress = Progress(outbox)
        parts = Parts(
            runner,
            self.slots,
            self.cost,
            self.scheduler,
            self.gauges,
            self._residency,
            self._progress,
            clock,
        )
        self._endings = Endings(parts)
        self._patience = Patience(parts, self._endings)
        self._decoding = Decoding(parts, self._endings)
        self.reading = Reading(parts, self._endings)
        self._outbox = outbox
        self._clock = clock
        self._tokenizing: dict[Key, Job] = {}
        self._deadline: float | None = None
        self._published_at = 0.0

    # --- any thread --------------------------------------------------------------------------
    def retry_after(self) -> float:
        """Seconds after which a refused request may find room."""
        return self.scheduler.retry_after()

    # --- the engine thread -------------------------------------------------------------------
    def run(self) -> int:
        """Work until drained. Returns the exit code of the process."""
        try:
            while not self.drained:
                self.turn()
        except RunnerError as error:
            _log.error("engine_broke", reason=str(error))
            self._fail_everything()
            return EXIT_BROKEN
        except Exception:  # noqa: BLE001 - the engine loop's edge
            _log.exception("engine_broke")
            self._fail_everything()
            return EXIT_BROKEN
        self._residency.leave(self._seconds_to_leave())
        self._publish()
        return EXIT_DRAINED

    @property
    def drained(self) -> bool:
        return self._deadline is not None and self.scheduler.idle and not self._tokenizing

    def turn(self) -> None:
        """One round; waits for a command first when there is nothing else to do."""
        self._receive()
        self._end_at_deadline()
        self._patience.expire()
        self._admit()
        self._patience.tell()
        self._decoding.step()
        self._report()
        self.reading.step()
        self._report()
        self._keeping.step()

    def _receive(self) -> None:
        if self.scheduler.idle and self.inbox.empty():
            self._publish()
            self.turn_started = 0.0
            self._wait()
        self.turn_started = self._clock()
        while not self.inbox.empty():
            self._obey(self.inbox.get())

    def _wait(self) -> None:
        """For a command, or until idle conversations should be copied."""
        with suppress(queue.Empty):
            self._obey(self.inbox.get(timeout=self._keeping.due_in()))

    def _obey(self, command: Command) -> None:
        if isinstance(command, Tokenized):
            self._consider(command)
        elif isinstance(command, Arrived):
            self._tokenizing[command.job.key] = command.job
        elif isinstance(command, Cancelled):
            self._cancel(command.key)
        elif isinstance(command, Disconnected):
            keys = [*self._tokenizing, *(s.job.key for s in self.scheduler.everyone())]
            for key in keys:
                if key[0] == command.connection:
                    self._cancel(key)
        elif isinstance(command, Drain):
            self._deadline = command.deadline

    def _seconds_to_leave(self) -> float:
        left = (self._deadline or 0.0) - self._clock()
        return min(max(left, _LEAST_SECONDS_TO_LEAVE), _MOST_SECONDS_TO_LEAVE)

    # --- coming ------------------------------------------------------------------------------
    def _consider(self, tokenized: Tokenized) -> None:
        """Accept a request, or say why not."""
        job = tokenized.job
        self._tokenizing.pop(job.key, None)
        if job.cancelled:
            return
        try:
            if tokenized.error is not None:
                raise tokenized.error
            sequence = create_sequence(job, tokenized.token_ids, self.runner, tokenized.matcher)
            try:
                num_ahead = self._patience.accept(sequence)
            except ServiceError:
                sequence.sampler.close()
                raise
        except ServiceError as error:
            _log.info("request_refused", request_id=job.submit.request_id, code=error.code)
            self._outbox.post(job.connection, refusal(job.submit.id, error))
            return
        self._outbox.post(
            job.connection, Accepted(job.submit.id, len(tokenized.token_ids), num_ahead)
        )

    def _admit(self) -> None:
        while (swap := self.scheduler.swap()) is not None:
            newcomer, yielding = swap
            self.slots.release(self.scheduler.put_back(yielding))
            self.gauges.yielded(yielding)
            placement = self.scheduler.place(newcomer)
            if placement is not None:
                self._settle(newcomer, placement)
        while (admission := self.scheduler.admission()) is not None:
            self._settle(*admission)

    def _settle(self, sequence: Sequence, placement: Placement) -> None:
        """It gets its slot."""
        self._residency.prepare(placement, sequence)
        self.scheduler.admit(sequence)
        sequence.occupy(placement.slot, self._clock())
        whole = sequence.sampler.needs_whole_rows or sequence.job.submit.logprobs is not None
        self.runner.takes_rows(placement.slot.index, whole=whole)
        if not sequence.resumed:
            self.gauges.admitted(sequence)

    # --- going -------------------------------------------------------------------------------
    def _cancel(self, key: Key) -> None:
        job = self._tokenizing.pop(key, None)
        if job is not None:
            job.cancelled = True
            self._progress.cancelled(job, self._clock())
            self.gauges.cancelled("tokenizing")
            return
        sequence = self.scheduler.find(key)
        if sequence is not None:
            self._endings.cancel(sequence, self._clock())

    def _end_at_deadline(self) -> None:
        if self._deadline is None or self._clock() < self._deadline:
            return
        now = self._clock()
        for sequence in self.scheduler.everyone():
            self._endings.finish(sequence, FinishReason.SHUTDOWN, now)
        for job in self._tokenizing.values():
            job.cancelled = True
            self._progress.cancelled(job, now)
        self._tokenizing.clear()

    def _fail_everything(self) -> None:
        """The last words of a broken engine. Does not touch the runner."""
        error = GenerationFailed("The engine broke while it was working on this; try again.")
        for sequence in self.scheduler.everyone():
            self._progress.failed(sequence, error)
            self.gauges.failed(sequence)
        for job in self._tokenizing.values():
            self._outbox.post(job.connection, refusal(job.submit.id, error))
        self._report()

    def _report(self) -> None:
        """Tell the workers what is new, and count before they know that something has ended."""
        if self._progress.has_ends or self._clock() - self._published_at > _PUBLISH_SECONDS:
            self._publish()
        self._progress.flush()

    def _publish(self) -> None:
        self._published_at = self._clock()
        running, waiting = len(self.scheduler.running), len(self.scheduler.waiting)
        self.gauges.publish(self.slots, running, waiting)
        self.gauges.tick(self._published_at)
