"""Errors as `{"detail": …}`: one sentence, or the list of faulty fields."""

from __future__ import annotations

from typing import Any

from service.api.errors import Problem


def to_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    if problem.details:
        return problem.status, {"detail": [dict(fault) for fault in problem.details]}
    return problem.status, {"detail": problem.message}
