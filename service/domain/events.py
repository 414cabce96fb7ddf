"""What a generation yields, in order: queue positions, deltas, then exactly one `Finished` or
`Failed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from service.domain.errors import ServiceError


class FinishReason(StrEnum):
    """Why a generation ended. `STOP`: the model or a stop string ended it. `LENGTH`: `max_tokens`
    or the context was reached. `SHUTDOWN`: the service is going down and ended it early.
    `DEADLINE`: the request's own time was over."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written. `cached_tokens` of `prompt_tokens` were not computed again."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent waiting for a slot, reading the prompt, and writing the answer."""

    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that could have come next: `text` are its bytes, which may be half a character,
    `logprob` the natural logarithm of its probability, before any truncation."""

    token_id: int
    text: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The token that was chosen, and the likeliest ones instead, the best first."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Comes before any delta, while the request waits for its turn."""

    num_ahead: int
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text. `logprobs`, where they were asked for, are those of the tokens since the last
    delta: text may be held back, so they and `text` need not match."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of tool call number `index`; `id` and `name` are there on its first piece only."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The generation broke after its first byte could have been sent."""

    error: ServiceError


@dataclass(frozen=True, slots=True)
class OfChoice:
    """What one of several answers to the same request yields; its own `Finished` is not the last
    word, which is a `Finished` with the usage of all."""

    choice: int
    event: TextDelta | ReasoningDelta | ToolCallDelta | Finished


Event = QueuePosition | TextDelta | ReasoningDelta | ToolCallDelta | OfChoice | Finished | Failed
