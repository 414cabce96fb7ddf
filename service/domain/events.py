"""What a generation yields, in order: deltas, then exactly one `Finished` or `Failed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from service.domain.errors import ServiceError


class FinishReason(StrEnum):
    """Why a generation ended. `STOP`: the model or a stop string ended it. `LENGTH`: `max_tokens`
    or the context was reached. `SHUTDOWN`: the service is going down and ended it early."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


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
class TextDelta:
    text: str


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


Event = TextDelta | ReasoningDelta | ToolCallDelta | Finished | Failed
