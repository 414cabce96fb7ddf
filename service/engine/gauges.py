"""What the engine counts. Cheap where tokens are made; published where there is time for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from service import metrics
from service.domain.events import FinishReason
from service.engine.kv.slots import Slots
from service.engine.sequence import Sequence

_RATE_WINDOW_SECONDS = 10


class Rate:
    """Things per second over the last ten seconds; 0 ten seconds after the last. Any thread."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    def add(self, now: float, count: int) -> None:
        with self._lock:
            second = int(now)
            if self._counts and self._counts[-1][0] == second:
                count += self._counts.pop()[1]
            self._counts.append((second, count))

    def per_second(self, now: float) -> float:
        with self._lock:
            while self._counts and self._counts[0][0] <= int(now) - _RATE_WINDOW_SECONDS:
                self._counts.popleft()
            return sum(count for _, count in self._counts) / _RATE_WINDOW_SECONDS


class Gauges:
    """The metrics of one engine. Engine thread, except for `tick`."""

    def __init__(self, model: str) -> None:
        self.rate = Rate()
        self.num_steps = 0
        self._num_decodes = 0
        self._num_generated = 0
        self._num_calls = 0
        self._prompt_tokens = 0
        self._prompt_seconds = 0.0
        self._generation_steps = 0
        self._generation_seconds = 0.0
        self._max_tokens = 0
        self._gaps: list[float] = []
        self._generated = metrics.GENERATED_TOKENS.labels(model)
        self._tokens_per_second = metrics.TOKENS_PER_SECOND.labels(model)
        self._first_token = metrics.TIME_TO_FIRST_TOKEN.labels(model)
        self._inter_token = metrics.INTER_TOKEN.labels(model)
        self._queue = metrics.QUEUE_SECONDS.labels(model)
        self._prefill = metrics.PREFILL_SECONDS.labels(model)
        self._request = metrics.REQUEST_SECONDS.labels(model)
        self._computed = metrics.PROMPT_TOKENS.labels(model, "false")
        self._cached = metrics.PROMPT_TOKENS.labels(model, "true")
        self._finished = {
            reason: metrics.REQUESTS_FINISHED.labels(model, reason.value) for reason in FinishReason
        }
        self._failed = metrics.REQUESTS_FINISHED.labels(model, "error")

    def decoded(self, num_rows: int, now: float, gaps: Iterable[float]) -> None:
        """A decode step brought `num_rows` tokens, that long after each stream's last."""
        self.num_steps += 1
        self._num_calls += 1
        self._num_decodes += 1
        self._num_generated += num_rows
        self.rate.add(now, num_rows)
        self._gaps += gaps

    def one_more(self, now: float) -> None:
        """A stream got a token by a guess that was right, or its first by its prompt's end."""
        self._num_generated += 1
        self.rate.add(now, 1)

    def prefilled(self, num_tokens: int, seconds: float) -> None:
        self.num_steps += 1
        self._num_calls += 1
        self._prompt_tokens += num_tokens
        self._prompt_seconds += seconds

    def admitted(self, sequence: Sequence) -> None:
        self._queue.observe(sequence.admitted_at - sequence.job.arrived)

    def crossed(self, num_tokens: int) -> None:
        """Tokens of one principal were about to be reused for another. Must never happen."""
        metrics.CROSS_PRINCIPAL_HITS.inc(num_tokens)

    def reused(self, source: str, saved_seconds: float) -> None:
        """A prompt's beginning was there, and did not have to be read for so long."""
        metrics.PREFIX_CACHE_HITS.labels(source).inc()
        metrics.PREFIX_CACHE_SAVED_SECONDS.labels(source).inc(saved_seconds)

    def first_token(self, sequence: Sequence) -> None:
        self._first_token.observe(sequence.first_token_at - sequence.job.arrived)
        self._prefill.observe(sequence.first_token_at - sequence.admitted_at)
        self._count_prompt(sequence.num_cached, sequence.num_prompt - sequence.num_cached)

    def finished(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        self._finished[reason].inc()
        self._request.observe(now - sequence.job.arrived)
        self._ended(sequence)

    def failed(self, sequence: Sequence) -> None:
        self._failed.inc()
        self._ended(sequence)

    def yielded(self, sequence: Sequence) -> None:
        metrics.SLOTS_YIELDED.labels(sequence.job.submit.priority.value).inc()

    def missed_deadline(self, stage: str) -> None:
        """`refused`, `waiting` for the first token, or `answering`."""
        metrics.DEADLINES_MISSED.labels(stage).inc()

    def cancelled(self, stage: str) -> None:
        metrics.REQUESTS_CANCELLED.labels(stage).inc()

    def _count_prompt(self, cached: int, computed: int) -> None:
        self._cached.inc(cached)
        self._computed.inc(computed)
        metrics.PREFIX_CACHE_TOKENS.labels("hit").inc(cached)
        metrics.PREFIX_CACHE_TOKENS.labels("miss").inc(computed)
        metrics.LLAMACPP_PROMPT_TOKENS.inc(computed)
        metrics.LLAMACPP_PROMPT_TOKENS_CACHED.inc(cached)

    def _ended(self, sequence: Sequence) -> None:
        usage = sequence.usage()
        if not sequence.first_token_at:  # ended before its prompt was read to the end
            computed = max(0, sequence.num_computed - sequence.num_cached)
            self._count_prompt(sequence.num_cached, computed)
        self._max_tokens = max(self._max_tokens, usage.total_tokens)
        # The first token came out of the prompt: n tokens are n - 1 steps of generation.
        if usage.completion_tokens > 1:
            self._generation_steps += usage.completion_tokens - 1
            seconds = sequence.last_token_at - sequence.first_token_at
            self._generation_seconds += seconds
            metrics.LLAMACPP_TOKENS_PREDICTED_SECONDS.inc(seconds)

    def publish(self, slots: Slots, num_running: int, num_waiting: int) -> None:
        """Hand on what was counted since the last time."""
        self._publish_tokens()
        metrics.REQUESTS_RUNNING.set(num_running)
        metrics.REQUESTS_WAITING.set(num_waiting)
        metrics.LLAMACPP_PROCESSING.set(num_running)
        metrics.LLAMACPP_DEFERRED.set(num_waiting)
        num_cached = sum(not slot.busy and slot.num_tokens > 0 for slot in slots)
        metrics.SLOTS.labels("busy").set(num_running)
        metrics.SLOTS.labels("cached").set(num_cached)
        metrics.SLOTS.labels("free").set(slots.num_slots - num_running - num_cached)
        metrics.KV_TOKENS.set(sum(slot.num_tokens for slot in slots))
        metrics.LLAMACPP_TOKENS_MAX.set(self._max_tokens)

    def _publish_tokens(self) -> None:
        for gap in self._gaps:
            self._inter_token.observe(gap)
        self._gaps.clear()
        self._generated.inc(self._num_generated)
        metrics.LLAMACPP_TOKENS_PREDICTED.inc(self._num_generated)
        metrics.LLAMACPP_DECODES.inc(self._num_calls)
        metrics.LLAMACPP_PROMPT_SECONDS.inc(self._prompt_seconds)
        if self._num_decodes:
            metrics.LLAMACPP_BUSY_SLOTS.set(self._num_generated / self._num_decodes)
        if self._prompt_seconds:
            metrics.LLAMACPP_PROMPT_RATE.set(self._prompt_tokens / self._prompt_seconds)
        if self._generation_seconds:
            metrics.LLAMACPP_PREDICTED_RATE.set(self._generation_steps / self._generation_seconds)
        self._num_generated = self._num_calls = self._num_decodes = self._prompt_tokens = 0
        self._prompt_seconds = 0.0

    def tick(self, now: float) -> None:
        """The rate as of now. Any thread: the IO thread calls it while nothing happens."""
        self._tokens_per_second.set(self.rate.per_second(now))
