"""From anything that goes wrong to the reply that says so, in the words of the route's dialect.

Whatever is raised becomes a `Problem` here; the dialect whose prefix the path carries turns the
problem into its own envelope. Bugs are logged by `middleware.InternalErrors`, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.api.replies import Json
from service.domain import errors

STATUSES: Mapping[type[errors.ServiceError], int] = {
    errors.ServiceError: 500,
    errors.InvalidRequest: 400,
    errors.ConversationLocked: 400,
    errors.Unsupported: 400,
    errors.ContextLengthExceeded: 400,
    errors.PayloadTooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.ConversationNotFound: 404,
    errors.ResponseNotFound: 404,
    errors.RateLimited: 429,
    errors.QuotaSpent: 429,
    errors.QueueFull: 503,
    errors.DeadlineMissed: 503,
    errors.EngineUnavailable: 503,
    errors.GenerationFailed: 500,
    errors.StoreUnavailable: 503,
    errors.Conflict: 409,
    errors.PoisonousRequest: 400,
    errors.SwitchFailed: 503,
    errors.ConfigurationError: 500,
    errors.ModelFileError: 400,
    errors.DownloadFailed: 503,
}

CLIENT_GONE = 499
# Where people's words belong. An error repeats none of them, also where they are not in place.
_CONTENTS = frozenset(
    {
        *("arguments", "content", "documents", "input", "input_prefix", "input_suffix"),
        *("instructions", "message", "messages", "prompt", "query", "reasoning_content"),
        *("suffix", "system", "system_prompt", "text", "thinking", "user_input"),
    }
)
_MAX_SHOWN = 60
# The longest Retry-After that both vendors' clients wait for.
_MAX_WAIT_SECONDS = 60


class ClientGone(Exception):
    """The client closed its connection, so nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a dialect needs to know to say that something went wrong.

    `details` lists faulty fields as pydantic does (`type`, `loc`, `msg`), where there are any.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: float | None = None
    details: tuple[Mapping[str, Any], ...] = ()
    request_id: str = ""


ErrorWords = Callable[[Problem], tuple[int, Mapping[str, Any]]]
"""A dialect's status and envelope for a problem."""


class ErrorReplies:
    """Every dialect's words for errors, by the prefix of its routes."""

    def __init__(self, words: Sequence[tuple[str, ErrorWords]]) -> None:
        self._words = words

    def reply(self, path: str, problem: Problem) -> Response:
        """The reply of the first dialect whose prefix `path` carries; "" is carried by all."""
        words = next(w for prefix, w in self._words if _carries(path, prefix))
        status, body = words(problem)
        return Json(body, status, headers=_headers(problem))


def _carries(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + "/")


def _headers(problem: Problem) -> dict[str, str]:
    """When to try again, for clients that retry 5xx replies unless told not to.

    A 503 is always worth another try, also where nobody knows when. Clients that are to wait for
    longer than they are prepared to would try again at once, and in vain.
    """
    seconds = problem.retry_after_seconds
    if seconds is not None or problem.status == 503:
        again = "true" if (seconds or 0) <= _MAX_WAIT_SECONDS else "false"
        return {"Retry-After": str(to_retry_after(seconds or 0)), "x-should-retry": again}
    return {"x-should-retry": "false"} if problem.status >= 500 else {}


def to_retry_after(seconds: float) -> int:
    """Whole seconds, rounded up, as the header wants them."""
    return max(1, math.ceil(seconds))


def to_problem(error: errors.ServiceError) -> Problem:
    """A refusal in the caller's terms."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return Problem(status, error.code, error.message, error.param, error.retry_after_seconds)


def internal_problem(request_id: str) -> Problem:
    """A fault of ours, about which the caller learns only what to quote."""
    message = f"Internal error. Request id: {request_id}."
    return Problem(500, "internal_error", message, request_id=request_id)


def install_error_replies(app: FastAPI, replies: ErrorReplies) -> None:
    """Make every refusal, ours and the framework's, speak its route's dialect."""

    async def refuse(request: Request, error: Exception) -> Response:
        problem = replace(_problem_of(request, error), request_id=request.state.request_id)
        reply = replies.reply(request.url.path, problem)
        reply.headers.update(getattr(error, "headers", None) or {})
        return reply

    async def say_nothing(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    for kind in (errors.ServiceError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(ClientGone, say_nothing)


def _problem_of(request: Request, error: Exception) -> Problem:
    match error:
        case errors.ServiceError():
            return to_problem(error)
        case RequestValidationError():
            return validation_problem(error)
        case HTTPException():
            return framework_problem(request, error)
    raise error


def framework_problem(request: Request, error: HTTPException) -> Problem:
    """What the framework refuses, in sentences."""
    path = request.url.path[:_MAX_SHOWN]
    if error.status_code == 404:
        return Problem(404, "not_found", f"There is nothing at {path}.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} does not take {request.method[:16]}; use {allowed}."
        return Problem(405, "method_not_allowed", message)
    if isinstance(error.__cause__, UnicodeDecodeError):
        return Problem(400, "invalid_request", "The body is not valid UTF-8.")
    if error.status_code == 400:
        return Problem(400, "invalid_request", "The body cannot be read as JSON.")
    code = {408: "request_timeout", 413: "payload_too_large"}.get(error.status_code, "http_error")
    return Problem(error.status_code, code, str(error.detail))


def validation_problem(error: RequestValidationError) -> Problem:
    """The first faulty field as one sentence, and all of them as `details`."""
    faults = error.errors()
    details = tuple({"type": f["type"], "loc": list(f["loc"]), "msg": f["msg"]} for f in faults)
    first = faults[0]
    if first["type"] == "json_invalid":
        reason, position = first["ctx"]["error"], first["loc"][-1]
        message = f"The body is not valid JSON: {reason} at character {position}."
        return Problem(422, "invalid_request", message, details=details)
    if isinstance(error.body, bytes):
        message = "Send the body as JSON, with the header Content-Type: application/json."
        fault = {"type": "content_type", "loc": ["body"], "msg": message}
        return Problem(422, "invalid_request", message, details=(fault,))
    param = to_param(first["loc"][1:])
    return Problem(422, "invalid_request", _sentence(param, first), param or None, details=details)


def to_param(location: Sequence[str | int]) -> str:
    """`("messages", 0, "role")` as `messages[0].role`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _sentence(param: str, fault: Mapping[str, Any]) -> str:
    if not param:
        return "The body must be a JSON object." if "type" in fault["type"] else fault["msg"]
    if fault["type"] == "missing":
        return f"{param} is missing."
    expectation = fault["msg"][0].lower() + fault["msg"][1:]
    is_said = isinstance(fault["input"], str) and _last_name(param) in _CONTENTS
    shown = "" if is_said else _shown(fault["input"])
    return f"{param}{shown} is not accepted: {expectation}."


def _last_name(param: str) -> str:
    return param.rpartition(".")[2].partition("[")[0]


def _shown(value: object) -> str:
    """` (value)`, where it is short enough to help."""
    if isinstance(value, (str, int, float, bool)) and len(repr(value)) <= _MAX_SHOWN:
        return f" ({value!r})"
    return ""
