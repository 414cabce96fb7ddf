"""The loop that owns the model: receive, admit, decode, read prompts, report.

One thread runs it and is the only one that touches the runner (but for `tokenize` and `abort`).
What to do next is decided in scheduler.py and slots.py; here it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service import log
from service.domain.errors import GenerationFailed, ServiceError
from service.domain.events import FinishReason
from service.engine.acceptance import create_sequence
from service.engine.cost import CostModel
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
from service.engine.progress import Progress
from service.engine.residency import Residency
from service.engine.runner import DecodeAborted, ModelRunner, PrefillPart, RunnerError
from service.engine.scheduler import Scheduler, plan_decode
from service.engine.sequence import Job, Key, Sequence
from service.engine.slots import Slots
from service.ipc.messages import Accepted
from service.settings import EngineSettings

EXIT_DRAINED = 0
EXIT_BROKEN = 70
_PUBLISH_SECONDS = 0.5

_log = log.get_logger(__name__)


class Engine:
    """One model's work, in order. `run` in its own thread; commands come through `inbox`."""

    def __init__(
        self,
        runner: ModelRunner,
        outbox: Outbox,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.inbox: Inbox = Inbox()
        self.slots = Slots(runner.num_slots, runner.slot_length)
        self.cost = CostModel(settings.inter_token_target_seconds, runner.max_batch_tokens)
        self.scheduler = Scheduler(self.slots, self.cost, settings.max_waiting)
        self.gauges = Gauges(runner.info.name)
        # Prompts that may be with the tokenizer: as many as could be running or waiting.
        self.max_backlog = settings.max_waiting + runner.num_slots
        self.turn_started = 0.0
        self._residency = Residency(runner, self.slots, self.gauges)
        self._progress = Progress(outbox)
        self._outbox = outbox
        self._clock = clock
        self._tokenizing: dict[Key, Job] = {}
        self._reading: Key | None = None
        self._deadline: float | None = None
        self._published_at = 0.0

    # --- any thread --------------------------------------------------------------------------
    def abort_reading(self, concerns: Callable[[Key], bool]) -> None:
        """Cut short the prompt that is being read if it is one that `concerns` nobody any more.

        A call is never shared between prompts, so nobody else loses work.
        """
        reading = self._reading
        if reading is not None and concerns(reading):
            self.runner.abort()

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
        self._publish()
        return EXIT_DRAINED

    @property
    def drained(self) -> bool:
        return self._deadline is not None and self.scheduler.idle and not self._tokenizing

    def turn(self) -> None:
        """One round; waits for a command first when there is nothing else to do."""
        self._receive()
        self._end_at_deadline()
        self._admit()
        self._decode()
        self._read_prompt()
        self._report()

    def _receive(self) -> None:
        if self.scheduler.idle and self.inbox.empty():
            self._publish()
            self.turn_started = 0.0
            self._obey(self.inbox.get())
        self.turn_started = self._clock()
        while not self.inbox.empty():
            self._obey(self.inbox.get())

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
            sequence = create_sequence(job, tokenized.token_ids, self.runner)
            try:
                num_ahead = self.scheduler.enqueue(sequence)
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
        while (placement := self.scheduler.admission()) is not None:
            sequence = self.scheduler.waiting.pop()
            self._residency.prepare(placement, sequence)
            sequence.occupy(placement.slot, self._clock())
            self.scheduler.running.append(sequence)
            self.gauges.admitted(sequence)

    # --- working -----------------------------------------------------------------------------
    def _decode(self) -> None:
        """One token for everyone whose prompt has been read."""
        sequences = self.scheduler.generating()
        if not sequences:
            return
        plan = plan_decode(sequences, self.slots, self.cost.padding_pays)
        started = self._clock()
        try:
            self.runner.decode(plan.rows)
            token_ids = [sequence.sampler.sample(row) for row, sequence in plan.sampled]
        except DecodeAborted:
            for sequence in sequences:
                self._residency.resync(sequence)
            return
        except RunnerError as error:
            self._fail(sequences, error)
            return
        finally:
            for slot in plan.padded:
                self._residency.forget_padding(slot)
        now = self._clock()
        self.cost.decoded(len(plan.rows), plan.num_runs, now - started)
        gaps = [now - s.last_token_at for s in sequences if s.last_token_at]
        self.gauges.decoded(len(sequences), now, gaps)
        for sequence, token_id in zip(sequences, token_ids, strict=True):
            self._advance(sequence, token_id, now)
        self._report()

    def _advance(self, sequence: Sequence, token_id: int, now: float) -> None:
        """The model read `sequence`'s last token, and this one followed."""
        sequence.lane.read_one(sequence.token_ids[-1])
        sequence.num_computed += 1
        sequence.token_ids.append(token_id)
        sequence.num_unreported += 1
        sequence.last_token_at = now
        if not sequence.first_token_at:
            sequence.first_token_at = now
            self.gauges.first_token(sequence)
        if self.runner.is_end(token_id):
            self._finish(sequence, FinishReason.STOP, now)
            return
        self._progress.text(sequence, sequence.text.feed(self.runner.piece(token_id)))
        if sequence.text.stopped_by is not None:
            self._finish(sequence, FinishReason.STOP, now)
        elif sequence.num_generated >= sequence.max_tokens:
            self._finish(sequence, FinishReason.LENGTH, now)

    def _read_prompt(self) -> None:
        """A chunk of one prompt, without logits: its last token is left to a decode step."""
        sequence = self.scheduler.reader()
        if sequence is None:
            return
        if not sequence.begun:
            self._residency.improve(sequence)
        count = self.scheduler.num_to_read(sequence)
        if not count:
            return
        slot = sequence.lane
        start = sequence.num_computed
        token_ids = sequence.token_ids[start : start + count]
        started = self._clock()
        self._reading = sequence.job.key
        try:
            self.runner.prefill([PrefillPart(slot.index, start, token_ids)])
        except DecodeAborted:
            self._residency.resync(sequence)
            return
        except RunnerError as error:
            self._fail([sequence], error)
            return
        finally:
            self._reading = None
        seconds = self._clock() - started
        slot.read(token_ids)
        sequence.num_computed += count
        self.cost.prefill.observe(count, seconds)
        self.gauges.prefilled(count, seconds)

    # --- going -------------------------------------------------------------------------------
    def _finish(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        self._progress.text(sequence, sequence.text.finish())
        self._progress.done(sequence, reason, now)
        self.gauges.finished(sequence, reason, now)
        self._leave(sequence)
        _log.info(
            "request_finished",
            request_id=sequence.job.submit.request_id,
            reason=reason.value,
            prompt_tokens=sequence.num_prompt,
            cached_tokens=sequence.num_cached,
            completion_tokens=sequence.num_generated,
            seconds=round(now - sequence.job.arrived, 4),
        )

    def _cancel(self, key: Key) -> None:
        job = self._tokenizing.pop(key, None)
        if job is not None:
            job.cancelled = True
            self._progress.cancelled(job, self._clock())
            self.gauges.cancelled("tokenizing")
            return
        sequence = self.scheduler.find(key)
        if sequence is None:
            return
        if sequence.slot is None:
            stage = "queued"
        else:
            stage = "prefill" if not sequence.first_token_at else "decode"
        now = self._clock()
        self.gauges.cancelled(stage)
        self._progress.done(sequence, FinishReason.CANCELLED, now)
        self.gauges.finished(sequence, FinishReason.CANCELLED, now)
        self._leave(sequence)
        _log.info("request_cancelled", request_id=sequence.job.submit.request_id, stage=stage)

    def _leave(self, sequence: Sequence) -> None:
        """Give back what it holds. What the model has read for it stays in the slot, as cache."""
        sequence.sampler.close()
        if sequence.slot is None:
            self.scheduler.waiting.remove(sequence)
            return
        self.scheduler.running.remove(sequence)
        self.slots.release(sequence.slot)
        self.cost.held(self._clock() - sequence.admitted_at)
        sequence.slot = None

    def _end_at_deadline(self) -> None:
        if self._deadline is None or self._clock() < self._deadline:
            return
        now = self._clock()
        for sequence in self.scheduler.everyone():
            self._finish(sequence, FinishReason.SHUTDOWN, now)
        for job in self._tokenizing.values():
            job.cancelled = True
            self._progress.cancelled(job, now)
        self._tokenizing.clear()

    def _fail(self, sequences: list[Sequence], error: RunnerError) -> None:
        """A batch was refused: its sequences fail, and what their slots hold is not trusted."""
        _log.error("batch_failed", reason=str(error), num_sequences=len(sequences))
        if error.fatal:
            raise error
        for sequence in sequences:
            slot = sequence.lane
            self._progress.failed(sequence, GenerationFailed(f"The model failed: {error}"))
            self.gauges.failed(sequence)
            self._leave(sequence)
            self._residency.clear(slot)

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
