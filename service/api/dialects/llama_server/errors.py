"""Errors in llama-server's envelope, whose `code` is the status."""

from __future__ import annotations

from typing import Any

from service.api.errors import Problem

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "unavailable_error",
}


def to_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Its status and body; its clients know no 422."""
    status = 400 if problem.status == 422 else problem.status
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if problem.code == "unsupported":
        kind = "not_supported_error"
    error: dict[str, Any] = {"code": status, "message": problem.message, "type": kind}
    if problem.param is not None:
        error["param"] = problem.param
    return status, {"error": error}
