"""Errors in Anthropic's envelope: its types, and the request's id for whoever has to ask."""

from __future__ import annotations

from typing import Any

from service.api.errors import Problem

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# The vendor's clients shorten the conversation and try again when a refusal begins like this.
_TOO_LONG = "prompt is too long: "


def to_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """The vendor's status and body; its clients know no 422."""
    return _status_of(problem), to_error_body(problem)


def to_error_body(problem: Problem) -> dict[str, Any]:
    """The envelope, which is also the event that ends a broken stream."""
    status = _status_of(problem)
    other = "invalid_request_error" if status < 500 else "api_error"
    too_long = problem.code == "context_length_exceeded"
    error = {
        "type": _TYPES.get(status, other),
        "message": _TOO_LONG + problem.message if too_long else problem.message,
    }
    return {"type": "error", "error": error, "request_id": problem.request_id}


def _status_of(problem: Problem) -> int:
    """A full queue is the vendor's 529; a model that is not there stays a 503."""
    if problem.code == "queue_full":
        return 529
    return 400 if problem.status == 422 else problem.status
