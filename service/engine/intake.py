"""What the IO thread does with a worker's frames: to the tokenizer with it, or to the engine."""

from __future__ import annotations

import time
from collections.abc import Callable

from service.domain.errors import EngineUnavailable, QueueFull, Unsupported
from service.engine.engine import Engine
from service.engine.inbox import Arrived, Cancelled, Disconnected, Drain, Outbox, refusal
from service.engine.sequence import Job
from service.engine.tokenizer import Asked, Tokenizer
from service.ipc.messages import Cancel, CountTokens, Detokenize, Submit, ToEngine, Tokenize


class Intake:
    """Receives frames, in the IO thread. Never computes, never waits."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        outbox: Outbox,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._outbox = outbox
        self._clock = clock
        self._draining = False

    def received(self, connection: int, frame: ToEngine) -> None:
        """One frame of a worker."""
        if isinstance(frame, Submit):
            self._submit(Job(connection, frame, self._clock()))
        elif isinstance(frame, Cancel):
            self._engine.inbox.put(Cancelled((connection, frame.id)))
            self._engine.reading.abort(lambda key: key == (connection, frame.id))
        elif isinstance(frame, CountTokens | Tokenize | Detokenize):
            self._ask(Asked(connection, frame))
        else:
            error = Unsupported(
                f"{self._engine.runner.info.name} runs to chat, and does not embed."
            )
            self._outbox.post(connection, refusal(frame.id, error))

    def disconnected(self, connection: int) -> None:
        """Closing a connection cancels all that came over it."""
        self._engine.inbox.put(Disconnected(connection))
        self._engine.reading.abort(lambda key: key[0] == connection)

    def drain(self, deadline: float) -> None:
        """Take nothing new; the engine ends by `deadline` (seconds, monotonic) at the latest."""
        self._draining = True
        self._engine.inbox.put(Drain(deadline))

    def _submit(self, job: Job) -> None:
        if self._draining:
            error = EngineUnavailable(
                "This engine is shutting down; try again.", retry_after_seconds=1.0
            )
            self._outbox.post(job.connection, refusal(job.submit.id, error))
        elif (full := self._full()) is not None:
            self._outbox.post(job.connection, refusal(job.submit.id, full))
        else:
            self._engine.inbox.put(Arrived(job))
            self._tokenizer.put(job)

    def _ask(self, asked: Asked) -> None:
        full = self._full()
        if full is None:
            self._tokenizer.put(asked)
        else:
            self._outbox.post(asked.connection, refusal(asked.question.id, full))

    def _full(self) -> QueueFull | None:
        """Why the tokenizer takes no more for now, if it does not."""
        backlog, limit = self._tokenizer.backlog, self._engine.max_backlog
        if backlog < limit:
            return None
        return QueueFull(
            f"{backlog} texts are waiting to be tokenized, and no more than {limit} may; "
            "try again later.",
            retry_after_seconds=self._engine.retry_after(),
        )
