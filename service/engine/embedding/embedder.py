"""The loop of an engine that turns texts into vectors, or into scores: take turns, read, answer.

One thread runs `Embedder.run` and is the only one that computes. Requests are *open* from their
arrival until they are answered, refused, or no longer wanted; any thread may close one.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service import log, metrics
from service.domain.errors import EngineUnavailable, GenerationFailed, ServiceError
from service.domain.model import Mode, ModelInfo
from service.engine.embedding.turns import Asked, Turn, Turns
from service.engine.inbox import Drain, Outbox, refusal
from service.engine.runner import DecodeAborted, RunnerError
from service.engine.sequence import Key
from service.ipc.messages import Embedded, Ranked

EXIT_DRAINED = 0
EXIT_BROKEN = 70

Vectors = NDArray[np.float32]
_log = log.get_logger(__name__)


class Reader(Protocol):
    """What the loop needs of a loaded model; `VectorRunner` is the real one."""

    info: ModelInfo
    max_sequences: int

    def read(self, inputs: Sequence[Sequence[int]]) -> Vectors:
        """A vector of each input. Raises `DecodeAborted` or `RunnerError`."""
        ...

    def abort(self) -> None:
        """Make a running `read` raise `DecodeAborted` soon. Any thread."""
        ...


class Embedder:
    """One model's vectors. `run` in its own thread; requests and `Drain` come through `inbox`."""

    def __init__(
        self,
        reader: Reader,
        outbox: Outbox,
        batch_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inbox: queue.SimpleQueue[Asked | Drain | None] = queue.SimpleQueue()
        self.open: set[Key] = set()
        self.num_calls = 0
        self.num_reading = 0
        self.call_started = 0.0
        self._reader = reader
        self._outbox = outbox
        self._batch_tokens = batch_tokens
        self._clock = clock
        self._turns = Turns()
        self._reading: frozenset[Key] = frozenset()
        self._seconds_per_token = 0.0
        self._deadline: float | None = None

    # --- any thread --------------------------------------------------------------------------
    def close(self, keys: Iterable[Key]) -> None:
        """Nobody wants these any more; what is being read for nobody else is cut short."""
        self.open.difference_update(keys)
        reading = self._reading
        if reading and reading.isdisjoint(self.open):
            self._reader.abort()
        self.inbox.put(None)

    def refuse(self, key: Key, error: ServiceError) -> None:
        """Answer an open request with `error`."""
        if key in self.open:
            self.open.discard(key)
            self._outbox.post(key[0], refusal(key[1], error))
            self.inbox.put(None)

    def retry_after(self) -> float:
        """Seconds after which a refused request may find room."""
        return max(1.0, self._turns.num_tokens_waiting * self._seconds_per_token)

    def pulse(self, now: float) -> tuple[int, int, int, float]:
        """Calls so far, requests that are read and that wait, seconds in the present call."""
        started, num_reading = self.call_started, self.num_reading
        num_waiting = max(0, len(self.open) - num_reading)
        return self.num_calls, num_reading, num_waiting, now - started if started else 0.0

    # --- the engine thread -------------------------------------------------------------------
    def run(self) -> int:
        """Work until drained. Returns the exit code of the process."""
        try:
            while not self.drained:
                self.step()
        except RunnerError as error:
            _log.error("engine_broke", reason=str(error))
            self._refuse_everything(EngineUnavailable("The engine broke; try again."))
            return EXIT_BROKEN
        return EXIT_DRAINED

    @property
    def drained(self) -> bool:
        return self._deadline is not None and not self.open

    def step(self) -> None:
        """One call of the model; waits for something to do first when there is nothing."""
        self._receive()
        if self._deadline is not None and self._clock() >= self._deadline:
            self._refuse_everything(EngineUnavailable("The service is shutting down."))
        self._turns.keep(self.open.__contains__)
        turns = self._turns.take(self._batch_tokens, self._reader.max_sequences)
        if turns:
            self._read(turns)

    def _receive(self) -> None:
        if not self._turns:
            left = None if self._deadline is None else max(0.0, self._deadline - self._clock())
            with contextlib.suppress(queue.Empty):
                self._obey(self.inbox.get(timeout=left))
        while not self.inbox.empty():
            self._obey(self.inbox.get())

    def _obey(self, command: Asked | Drain | None) -> None:
        if isinstance(command, Asked):
            if command.key in self.open:
                self._turns.add(command)
        elif isinstance(command, Drain):
            self._deadline = command.deadline

    def _read(self, turns: Sequence[Turn]) -> None:
        inputs = [token_ids for turn in turns for token_ids in turn.inputs]
        num_tokens = sum(map(len, inputs))
        self._begin(turns)
        try:
            vectors = self._reader.read(inputs)
        except DecodeAborted:
            # The flag may have been meant for the call before; who still waits is read again.
            for turn in turns:
                if turn.asked.key in self.open:
                    self._turns.put_back(turn)
            return
        except RunnerError as error:
            if error.fatal:
                raise
            _log.error("inputs_failed", reason=str(error))
            for turn in turns:
                self.refuse(turn.asked.key, GenerationFailed("The model could not read this."))
            return
        finally:
            seconds = self._end()
        self._count(num_tokens, len(inputs), seconds)
        at = 0
        for turn in turns:
            count = turn.stop - turn.start
            self._answer(turn, vectors[at : at + count])
            at += count

    def _begin(self, turns: Sequence[Turn]) -> None:
        self._reading = frozenset(turn.asked.key for turn in turns)
        self.num_reading = len(turns)
        self.call_started = self._clock()

    def _end(self) -> float:
        seconds = self._clock() - self.call_started
        self._reading = frozenset()
        self.call_started = 0.0
        self.num_reading = 0
        self.num_calls += 1
        return seconds

    def _count(self, num_tokens: int, num_inputs: int, seconds: float) -> None:
        info = self._reader.info
        metrics.INPUT_TOKENS.labels(info.name).inc(num_tokens)
        metrics.INPUTS.labels(info.name).inc(num_inputs)
        metrics.VECTOR_CALL_SECONDS.labels(info.name).observe(seconds)
        latest = seconds / num_tokens
        known = self._seconds_per_token
        self._seconds_per_token = 0.8 * known + 0.2 * latest if known else latest

    def _answer(self, turn: Turn, vectors: Vectors) -> None:
        asked = turn.asked
        if asked.key not in self.open:
            return
        if not np.isfinite(vectors).all():
            _log.error("vectors_not_finite", model=self._reader.info.name)
            self.refuse(asked.key, GenerationFailed("The model made no finite numbers of this."))
            return
        connection, number = asked.key
        num_tokens = tuple(map(len, turn.inputs))
        last = turn.stop == len(asked.inputs)
        if self._reader.info.mode is Mode.RERANK:
            scores = tuple(map(float, vectors[:, 0]))
            self._outbox.post(connection, Ranked(number, scores, num_tokens, last))
        else:
            kept = of_length_one(vectors[:, : asked.dimensions])
            rows = tuple(row.tobytes() for row in kept)
            self._outbox.post(connection, Embedded(number, rows, num_tokens, last))
        if last:
            self.open.discard(asked.key)
            seconds = self._clock() - asked.arrived
            metrics.VECTOR_REQUEST_SECONDS.labels(self._reader.info.name).observe(seconds)

    def _refuse_everything(self, error: ServiceError) -> None:
        for key in list(self.open):
            self.refuse(key, error)


def of_length_one(vectors: Vectors) -> Vectors:
    """Each row divided by its length, little-endian; a row of zeros stays what it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype("<f4")
