"""The workers' end of the socket to an engine, and the way to the engine that is current."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from service.domain.chat import Prompt
from service.domain.model import ModelInfo
from service.domain.sampling import Sampling
from service.ipc.messages import Accepted, Delta, Done
from service.ipc.status import ServiceStatus


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine is asked to generate; the client numbers it and makes it a `Submit`."""

    request_id: str
    prompt: Prompt
    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    cache_key: str = ""


class EngineStream(Protocol):
    """An accepted job's progress: any number of `Delta`, then exactly one `Done`.

    The engine's death arrives as a `Done` with `error_code`. Closing the stream cancels the job.
    """

    accepted: Accepted

    def __aiter__(self) -> AsyncIterator[Delta | Done]: ...

    async def aclose(self) -> None: ...


class EngineClient(Protocol):
    """One way to one served model."""

    @property
    def model(self) -> ModelInfo: ...

    async def submit(self, job: Job) -> EngineStream:
        """Returns once the engine has accepted. Raises the engine's refusal as a `ServiceError`,
        `EngineUnavailable` (with a time to retry) when there is no engine to ask. A job without a
        token sent is resubmitted once if its engine dies."""
        ...

    async def count_tokens(self, prompt: Prompt) -> int: ...


class Engines(Protocol):
    """The engines of this service, as the supervisor announces them."""

    @property
    def status(self) -> ServiceStatus:
        """The supervisor's last word; phase `STARTING` before its first."""
        ...

    def current(self) -> EngineClient:
        """The engine for new requests. Raises `EngineUnavailable` saying why there is none."""
        ...

    async def aclose(self) -> None: ...
