"""Errors in OpenAI's envelope, for the dialects of that vendor: always the same four keys."""

from __future__ import annotations

from typing import Any

from service.api.errors import Problem

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}
# Our codes that the vendor's clients know under another name; others go out as they are.
_CODES = {
    "internal_error": "server_error",
    "generation_failed": "server_error",
    "quota_spent": "insufficient_quota",
    "rate_limited": "rate_limit_exceeded",
    "unauthenticated": "invalid_api_key",
}


def to_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """The vendor's status and body; its clients know no 422."""
    status = 400 if problem.status == 422 else problem.status
    return status, to_error_body(problem)


def to_error_body(problem: Problem) -> dict[str, Any]:
    """The envelope, which is also the frame that ends a broken stream."""
    status = 400 if problem.status == 422 else problem.status
    error = {
        "message": problem.message,
        "type": _TYPES.get(status, "server_error"),
        "param": problem.param,
        "code": _CODES.get(problem.code, problem.code),
    }
    return {"error": error}
