"""The thread that makes matchers, so that a large grammar holds up nobody's prompt."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace

from service.domain.constraint import Constraint
from service.domain.errors import QueueFull, ServiceError
from service.engine.inbox import Inbox, Tokenized
from service.engine.runner import Matcher
from service.engine.tokenizer import start_tokenizing

MAX_BACKLOG = 32
_SECONDS_EACH = 1.0


class Compiler:
    """Between the tokenizer and the engine's inbox: what has a constraint gets its matcher here.

    What has none, or was refused before, goes straight on.
    """

    def __init__(self, create_matcher: Callable[[Constraint], Matcher], inbox: Inbox) -> None:
        self._create_matcher = create_matcher
        self._inbox = inbox
        self._queue: queue.SimpleQueue[Tokenized | None] = queue.SimpleQueue()

    def put(self, tokenized: Tokenized) -> None:
        """Any thread."""
        if tokenized.error is not None or tokenized.job.submit.constraint is None:
            self._inbox.put(tokenized)
        elif self._queue.qsize() < MAX_BACKLOG:
            self._queue.put(tokenized)
        else:
            full = QueueFull(
                f"{MAX_BACKLOG} grammars are waiting to be compiled, and no more may; try again "
                "later.",
                retry_after_seconds=MAX_BACKLOG * _SECONDS_EACH,
            )
            self._inbox.put(replace(tokenized, error=full))

    def stop(self) -> None:
        """Let the thread end when it has done what is queued."""
        self._queue.put(None)

    def run(self) -> None:
        """Until `stop`, in a thread with a deep stack."""
        while (tokenized := self._queue.get()) is not None:
            self._inbox.put(self._compiled(tokenized))

    def start(self) -> threading.Thread:
        """Start the thread; like a tokenizer's, where no other is being started."""
        return start_tokenizing(self.run, "compiler")

    def _compiled(self, tokenized: Tokenized) -> Tokenized:
        constraint = tokenized.job.submit.constraint
        if constraint is None or tokenized.job.cancelled:
            return tokenized
        try:
            return replace(tokenized, matcher=self._create_matcher(constraint))
        except ServiceError as error:
            return replace(tokenized, error=error)
