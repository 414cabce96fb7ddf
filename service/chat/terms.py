"""How urgent a request is, and how long its answer is of use: said beside it, for any dialect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import msgspec

from service.domain.chat import Priority
from service.ipc.messages import Submit


@dataclass(frozen=True, slots=True)
class Terms:
    """What was said of a request; None: nothing, so that its body decides. Times are seconds from
    its arrival at the engine: until the first token, and until the end."""

    priority: Priority | None = None
    first_token_seconds: float | None = None
    deadline_seconds: float | None = None


_present: ContextVar[Terms | None] = ContextVar("terms", default=None)


@contextmanager
def under(terms: Terms) -> Iterator[None]:
    """What is asked of an engine within is asked under these terms."""
    token = _present.set(terms)
    try:
        yield
    finally:
        _present.reset(token)


def on_terms(job: Submit, max_seconds: float = 0.0) -> Submit:
    """The job under the terms of the request that it is for; no answer takes longer than
    `max_seconds`, where that is not 0."""
    terms = _present.get() or Terms()
    deadlines = (terms.deadline_seconds or job.deadline_seconds, max_seconds)
    return msgspec.structs.replace(
        job,
        priority=terms.priority or job.priority,
        first_token_seconds=terms.first_token_seconds or job.first_token_seconds,
        deadline_seconds=min(filter(None, deadlines), default=None),
    )
