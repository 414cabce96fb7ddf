"""What reaches an embedding or reranking engine: frames in the IO thread, texts in the tokenizer's.

A request is opened here, its inputs become token ids, and then it is the embedder's.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from service.domain.chat import Prompt, PromptPiece
from service.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    QueueFull,
    ServiceError,
    Unsupported,
)
from service.domain.model import Mode, ModelInfo
from service.engine.embedding.embedder import Embedder
from service.engine.embedding.turns import Asked
from service.engine.inbox import Drain, Outbox, refusal
from service.engine.texts import QuestionOfText, Texts
from service.engine.vocabulary import Vocabulary
from service.ipc.messages import (
    Cancel,
    CountTokens,
    Detokenize,
    Embed,
    Rerank,
    Submit,
    ToEngine,
    Tokenize,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How one model reads texts: its words, and the template for a query and a document."""

    info: ModelInfo
    vocabulary: Vocabulary
    rerank_template: str | None = None

    def token_ids(self, given: str | tuple[int, ...]) -> list[int]:
        """The tokens of one input. Token ids are taken as they are. Raises `InvalidRequest`."""
        if isinstance(given, str):
            before, after = self.vocabulary.around()
            return [*before, *self.vocabulary.content(_untrusted(given)), *after]
        size = self.vocabulary.size
        wrong = next((i for i in given if not 0 <= i < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"{wrong} is no token id of {self.info.name}; those are 0 to {size - 1}."
            )
        return list(given)

    def pair(self, query: str, document: str) -> list[int]:
        """The tokens of a query and a document as the model wants to see them together."""
        words = self.vocabulary
        if self.rerank_template is not None:
            return words.content(_fill(self.rerank_template, query, document))
        before, after = words.around()
        between = words.between()
        end = after or between
        asked, found = words.content(_untrusted(query)), words.content(_untrusted(document))
        return [*before, *asked, *between, *found, *end]


class VectorIntake:
    """Receives frames, in the IO thread. Never computes, never waits."""

    def __init__(
        self,
        embedder: Embedder,
        tokenizer: InputTokenizer,
        outbox: Outbox,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embedder = embedder
        self._tokenizer = tokenizer
        self._outbox = outbox
        self._max_waiting = max_waiting
        self._clock = clock
        self._draining = False

    def received(self, connection: int, frame: ToEngine) -> None:
        """One frame of a worker."""
        if isinstance(frame, Cancel):
            self._embedder.close([(connection, frame.id)])
        elif isinstance(frame, CountTokens | Tokenize | Detokenize):
            self._tokenizer.answer(connection, frame)
        else:
            self._ask(connection, frame)

    def disconnected(self, connection: int) -> None:
        """Closing a connection cancels all that came over it."""
        self._embedder.close([key for key in list(self._embedder.open) if key[0] == connection])

    def drain(self, deadline: float) -> None:
        """Take nothing new; the embedder ends by `deadline` (seconds, monotonic) at the latest."""
        self._draining = True
        self._embedder.inbox.put(Drain(deadline))

    def _ask(self, connection: int, frame: Submit | Embed | Rerank) -> None:
        wanted = {Mode.EMBED: Embed, Mode.RERANK: Rerank}[self._tokenizer.reading.info.mode]
        try:
            if not isinstance(frame, Embed | Rerank) or not isinstance(frame, wanted):
                name, mode = self._tokenizer.reading.info.name, self._tokenizer.reading.info.mode
                raise Unsupported(f"{name} runs to {mode}; it does nothing else.")
            self._require_room()
        except ServiceError as error:
            self._outbox.post(connection, refusal(frame.id, error))
            return
        self._embedder.open.add((connection, frame.id))
        self._tokenizer.put(connection, frame, self._clock())

    def _require_room(self) -> None:
        if self._draining:
            raise EngineUnavailable(
                "This engine is shutting down; try again.", retry_after_seconds=1.0
            )
        num_open = len(self._embedder.open)
        if num_open > self._max_waiting:
            raise QueueFull(
                f"{num_open} requests are waiting for this model, and no more than "
                f"{self._max_waiting} may; try again later.",
                retry_after_seconds=self._embedder.retry_after(),
            )


class InputTokenizer:
    """The thread that turns inputs into token ids; requests leave it in the order they came."""

    def __init__(self, reading: Reading, embedder: Embedder, outbox: Outbox) -> None:
        self.reading = reading
        self._embedder = embedder
        self._outbox = outbox
        self._texts = Texts(reading.vocabulary)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def put(self, connection: int, frame: Embed | Rerank, arrived: float) -> None:
        """Any thread."""
        self._queue.put(partial(self._tokenize, connection, frame, arrived))

    def answer(self, connection: int, frame: QuestionOfText) -> None:
        """Any thread."""
        self._queue.put(lambda: self._outbox.post(connection, self._texts.answer(frame)))

    def stop(self) -> None:
        """Let the thread end when it has done what is queued."""
        self._queue.put(None)

    def run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def _tokenize(self, connection: int, frame: Embed | Rerank, arrived: float) -> None:
        key = (connection, frame.id)
        dimensions = frame.dimensions if isinstance(frame, Embed) else None
        asked = Asked(key, frame.fair_key, [], dimensions, arrived)
        try:
            for token_ids in self._inputs(frame):
                if key not in self._embedder.open:
                    return
                asked.inputs.append(token_ids)
        except ServiceError as error:
            self._embedder.refuse(key, error)
            return
        self._embedder.inbox.put(asked)

    def _inputs(self, frame: Embed | Rerank) -> Iterator[list[int]]:
        """Each input's tokens. Raises what is wrong with one, naming it."""
        if isinstance(frame, Embed):
            for number, given in enumerate(frame.inputs):
                yield self._checked(f"input[{number}]", partial(self.reading.token_ids, given))
            return
        for number, document in enumerate(frame.documents):
            where = f"documents[{number}]"
            yield self._checked(where, partial(self.reading.pair, frame.query, document))

    def _checked(self, where: str, tokenize: Callable[[], list[int]]) -> list[int]:
        info = self.reading.info
        param = where.partition("[")[0]
        try:
            token_ids = tokenize()
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: {error.message}", param=param) from error
        if not token_ids:
            raise InvalidRequest(f"{where} has no tokens; send some text.", param=param)
        if len(token_ids) > info.context_length:
            with_query = " together with the query" if info.mode is Mode.RERANK else ""
            raise ContextLengthExceeded(
                f"{where} has {len(token_ids)} tokens{with_query}, but {info.name} reads at most "
                f"{info.context_length} at once.",
                param=param,
            )
        return token_ids


def _untrusted(text: str) -> Prompt:
    return (PromptPiece(text, trusted=False),)


def _fill(template: str, query: str, document: str) -> Prompt:
    """The model's own words around those of the people, which are never read as its control
    tokens."""
    pieces: list[PromptPiece] = []
    for number, part in enumerate(template.split("{query}")):
        if number:
            pieces.append(PromptPiece(query, trusted=False))
        for index, own in enumerate(part.split("{document}")):
            if index:
                pieces.append(PromptPiece(document, trusted=False))
            pieces.append(PromptPiece(own, trusted=True))
    return tuple(pieces)
