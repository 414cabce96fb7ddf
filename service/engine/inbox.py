"""What the engine thread is told by the others, and whom it tells."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Protocol

from service.domain.errors import ServiceError
from service.engine.runner import Matcher
from service.engine.sequence import Job, Key
from service.ipc.messages import Frame, Refused


@dataclass(frozen=True, slots=True)
class Arrived:
    """A job that is with the tokenizer now."""

    job: Job


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A job whose prompt has become token ids, and its constraint a matcher, or cannot."""

    job: Job
    token_ids: list[int]
    error: ServiceError | None = None
    matcher: Matcher | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client wants no more of this."""

    key: Key


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A worker is gone, and so is the interest in all its requests."""

    connection: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish what there is; end what is left at `deadline` (seconds, monotonic); then stop."""

    deadline: float


Command = Arrived | Tokenized | Cancelled | Disconnected | Drain
Inbox = queue.SimpleQueue[Command]


class Letterbox(Protocol):
    """Where a job goes that has been tokenized."""

    def put(self, tokenized: Tokenized, /) -> None: ...


class Outbox(Protocol):
    """The way to the workers. Never blocks; any thread; frames of one connection keep order."""

    def post(self, connection: int, frame: Frame) -> None: ...


def refusal(request_id: int, error: ServiceError) -> Refused:
    """`error` as a frame."""
    return Refused(request_id, error.code, error.message, error.param, error.retry_after_seconds)
