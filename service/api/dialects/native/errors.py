"""Errors as `{"detail": …}`, in the sentences that this dialect's clients know."""

from __future__ import annotations

from typing import Any

from service.api.errors import Problem


def to_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Faulty fields are listed; where the known sentence says less than ours, `reason` has ours."""
    if problem.details:
        return problem.status, {"detail": [dict(fault) for fault in problem.details]}
    known = _KNOWN_SENTENCES.get(problem.code)
    if known is not None:
        return problem.status, {"detail": known, "reason": problem.message}
    return problem.status, {"detail": to_sentence(problem)}


def to_sentence(problem: Problem) -> str:
    prefix = "Generation error: " if problem.code == "generation_failed" else ""
    return prefix + problem.message


_KNOWN_SENTENCES = {
    "conversation_not_found": "Session not found",
    "engine_unavailable": "Model not loaded",
}
