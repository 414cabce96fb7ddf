"""Headers that say how urgent a request is, and how long its answer is of use; any dialect's."""

from __future__ import annotations

import math
from dataclasses import replace

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import ErrorReplies, to_problem
from service.chat.terms import Terms, under
from service.domain.chat import Priority
from service.domain.errors import InvalidRequest

PRIORITY = "x-parley-priority"
FIRST_TOKEN = "x-parley-first-token-seconds"  # noqa: S105  # a header's name
DEADLINE = "x-parley-deadline-seconds"
# A day: whoever waits longer does not mind.
_MOST_SECONDS = 86_400.0
_SHOWN = 40


class StatedTerms:
    """Has requests run under the terms that their headers state; refuses what makes no sense."""

    def __init__(self, app: ASGIApp, replies: ErrorReplies) -> None:
        self.app = app
        self.replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if not any(name in headers for name in (PRIORITY, FIRST_TOKEN, DEADLINE)):
            await self.app(scope, receive, send)
            return
        try:
            terms = to_terms(headers)
        except InvalidRequest as error:
            problem = replace(to_problem(error), request_id=scope["state"]["request_id"])
            await self.replies.reply(scope["path"], problem)(scope, receive, send)
            return
        with under(terms):
            await self.app(scope, receive, send)


def to_terms(headers: Headers) -> Terms:
    """Raises `InvalidRequest` naming the header, its value, and what is accepted."""
    first_token, deadline = _seconds(headers, FIRST_TOKEN), _seconds(headers, DEADLINE)
    return Terms(_priority(headers), first_token, deadline)


def _priority(headers: Headers) -> Priority | None:
    said = headers.get(PRIORITY)
    if said is None:
        return None
    try:
        return Priority(said.strip().lower())
    except ValueError:
        choices = " or ".join(priority.value for priority in Priority)
        raise InvalidRequest(
            f"{PRIORITY} is {said[:_SHOWN]!r}; it must be {choices}.", param=PRIORITY
        ) from None


def _seconds(headers: Headers, name: str) -> float | None:
    said = headers.get(name)
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST_SECONDS:
        raise InvalidRequest(
            f"{name} is {said[:_SHOWN]!r}; it must be a number of seconds above 0, up to "
            f"{_MOST_SECONDS:g}.",
            param=name,
        )
    return seconds
