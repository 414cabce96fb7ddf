"""What one turn of the engine brought, on its way to the workers."""

from __future__ import annotations

from service.domain.errors import ServiceError
from service.domain.events import FinishReason, Timings, Usage
from service.engine.inbox import Outbox
from service.engine.sequence import Job, Sequence
from service.ipc.messages import Delta, Done, Queued, Step


class Progress:
    """Collects deltas and dones, and posts one `Step` per worker at each `flush`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._deltas: dict[int, list[Delta]] = {}
        self._dones: dict[int, list[Done]] = {}

    @property
    def has_ends(self) -> bool:
        """Whether a generation's end is among what the next `flush` posts."""
        return bool(self._dones)

    def queued(self, sequence: Sequence, num_ahead: int, eta_seconds: float) -> None:
        """It still waits. Sent at once."""
        job = sequence.job
        self._outbox.post(job.connection, Queued(job.submit.id, num_ahead, eta_seconds))

    def text(self, sequence: Sequence, text: str) -> None:
        """New text, if any; tokens that brought none are counted with the next that do."""
        if not text:
            return
        job = sequence.job
        tokens, told = sequence.unreported, sequence.num_told
        begins = () if tokens == [told] else tuple(begin - told for begin in tokens)
        delta = Delta(job.submit.id, text, len(tokens), tuple(sequence.logprobs), begins)
        sequence.num_told += len(text)
        tokens.clear()
        sequence.logprobs.clear()
        if job.connection in self._deltas:
            self._deltas[job.connection].append(delta)
        else:
            self._deltas[job.connection] = [delta]

    def done(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        job = sequence.job
        done = Done(
            job.submit.id,
            reason,
            sequence.usage(),
            sequence.timings(now),
            stop_sequence=sequence.text.stopped_by,
        )
        self._dones.setdefault(job.connection, []).append(done)

    def cancelled(self, job: Job, now: float) -> None:
        """A job ended before it was a sequence."""
        timings = Timings(queue_seconds=now - job.arrived)
        done = Done(job.submit.id, FinishReason.CANCELLED, Usage(), timings)
        self._dones.setdefault(job.connection, []).append(done)

    def failed(self, sequence: Sequence, error: ServiceError) -> None:
        job = sequence.job
        done = Done(
            job.submit.id,
            FinishReason.STOP,
            sequence.usage(),
            Timings(),
            error_code=error.code,
            error_message=error.message,
        )
        self._dones.setdefault(job.connection, []).append(done)

    def flush(self) -> None:
        """Post what there is: one frame per connection, deltas before dones."""
        if not self._deltas and not self._dones:
            return
        for connection in self._deltas.keys() | self._dones.keys():
            deltas = self._deltas.get(connection, ())
            dones = self._dones.get(connection, ())
            self._outbox.post(connection, Step(tuple(deltas), tuple(dones)))
        self._deltas.clear()
        self._dones.clear()
