"""How a sequence ends: finished, cancelled, failed. It gives back what it holds."""

from __future__ import annotations

from collections.abc import Sequence as Several

from service import log
from service.domain.errors import GenerationFailed, ServiceError
from service.domain.events import FinishReason
from service.engine.parts import Parts
from service.engine.runner import DeadEnd, RunnerError
from service.engine.sequence import Sequence

_log = log.get_logger(__name__)


class Endings:
    """The last step of each sequence. Engine thread only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def finish(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        """It has all it was to get; text that was held back still goes out."""
        self._parts.progress.text(sequence, sequence.text.finish())
        self._parts.progress.done(sequence, reason, now)
        self._parts.gauges.finished(sequence, reason, now)
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

    def cancel(self, sequence: Sequence, now: float) -> None:
        """Nobody wants more of it."""
        if sequence.slot is None:
            stage = "queued"
        else:
            stage = "prefill" if not sequence.first_token_at else "decode"
        self._parts.gauges.cancelled(stage)
        self._parts.progress.done(sequence, FinishReason.CANCELLED, now)
        self._parts.gauges.finished(sequence, FinishReason.CANCELLED, now)
        self._leave(sequence)
        _log.info("request_cancelled", request_id=sequence.job.submit.request_id, stage=stage)

    def fail(self, sequences: Several[Sequence], error: RunnerError) -> None:
        """A batch was refused: its sequences fail, and what their slots hold is not trusted.

        Raises `error` again where it says that the process should be replaced.
        """
        _log.error("batch_failed", reason=str(error), num_sequences=len(sequences))
        if error.fatal:
            raise error
        for sequence in sequences:
            slot = sequence.lane
            failed = GenerationFailed(f"The model failed: {error}")
            self._parts.progress.failed(sequence, failed)
            self._parts.gauges.failed(sequence)
            self._leave(sequence)
            self._parts.residency.clear(slot)

    def dead_end(self, sequence: Sequence, reason: DeadEnd) -> None:
        """No token may follow. Its slot holds what it should."""
        failed = GenerationFailed(f"The answer stopped short: {reason}.")
        self._parts.progress.failed(sequence, failed)
        self._parts.gauges.failed(sequence)
        self._leave(sequence)
        _log.warning("answer_stuck", request_id=sequence.job.submit.request_id, reason=str(reason))

    def give_up(self, sequence: Sequence, error: ServiceError) -> None:
        """It will not get a token. What was read for it stays, as cache."""
        self._parts.progress.failed(sequence, error)
        self._parts.gauges.failed(sequence)
        self._leave(sequence)
        _log.info("request_given_up", request_id=sequence.job.submit.request_id, code=error.code)

    def _leave(self, sequence: Sequence) -> None:
        """Give back what it holds. What the model has read for it stays in the slot, as cache."""
        sequence.sampler.close()
        self._parts.scheduler.leave(sequence)
        if sequence.slot is not None:
            self._parts.residency.remember(sequence)
            self._parts.slots.release(sequence.slot)
            self._parts.cost.held(self._parts.clock() - sequence.admitted_at)
            sequence.slot = None
