"""The thread that turns prompts into token ids, so that a long one holds up nobody else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from service.domain.errors import ServiceError
from service.engine.inbox import Letterbox, Outbox, Tokenized
from service.engine.kv.recall import Recall
from service.engine.runner import ModelRunner
from service.engine.sequence import Job
from service.engine.texts import QuestionOfText, Texts

# Some vocabularies are split by std::regex, which recurses once per character: on the usual stack
# 40 kB of one letter kill the process. The pages are only used where such a text comes.
STACK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about text, from `connection`."""

    connection: int
    question: QuestionOfText


class Tokenizer:
    """A queue and its thread. Jobs reach the engine's inbox in the order they came."""

    def __init__(
        self,
        runner: ModelRunner,
        inbox: Letterbox,
        outbox: Outbox,
        recall: Recall | None = None,
    ) -> None:
        self._recall = recall or Recall(runner)
        self._texts = Texts(runner.spelling, self._recall.sight)
        self._inbox = inbox
        self._outbox = outbox
        self._queue: queue.SimpleQueue[Job | Asked | None] = queue.SimpleQueue()

    @property
    def backlog(self) -> int:
        """How many texts are waiting to be tokenized."""
        return self._queue.qsize()

    def put(self, work: Job | Asked) -> None:
        """Any thread."""
        self._queue.put(work)

    def start(self) -> threading.Thread:
        """Start the thread; call from a moment when no other thread is being started."""
        return start_tokenizing(self.run)

    def stop(self) -> None:
        """Let the thread end when it has done what is queued."""
        self._queue.put(None)

    def run(self) -> None:
        while (work := self._queue.get()) is not None:
            if isinstance(work, Job):
                self._tokenize(work)
            else:
                self._outbox.post(work.connection, self._texts.answer(work.question))

    def _tokenize(self, job: Job) -> None:
        if job.cancelled:
            self._inbox.put(Tokenized(job, []))
            return
        try:
            recalled = self._recall.tokenize(job.submit)
        except ServiceError as error:
            self._inbox.put(Tokenized(job, [], error))
            return
        job.num_shared, job.seen = recalled.num_shared, recalled.seen
        self._inbox.put(Tokenized(job, recalled.token_ids))


def start_tokenizing(run: Callable[[], None], name: str = "tokenizer") -> threading.Thread:
    """A thread for `run` whose stack is deep enough; call while no other is being started."""
    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    return thread
