"""The table of errors."""

from __future__ import annotations

import pytest

from service.api.dialects import anthropic, native, openai
from service.api.errors import STATUSES, ErrorReplies, Problem, to_problem
from service.domain.errors import (
    ConversationNotFound,
    EngineUnavailable,
    QueueFull,
    QuotaSpent,
    RateLimited,
    ServiceError,
    error_codes,
)

# What the terminal raises never crosses HTTP, and is known only where a test has imported it.
ERRORS = sorted(
    (kind for kind in error_codes().values() if not kind.__module__.startswith("service.cli")),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_status(kind: type[ServiceError]) -> None:
    assert 400 <= STATUSES[kind] < 600


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_words_in_every_dialect(kind: type[ServiceError]) -> None:
    problem = to_problem(kind("Something is wrong.", param="temperature"))
    status, body = openai.to_error(problem)
    assert status == STATUSES[kind]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert all(isinstance(body["error"][key], str) for key in ("message", "type", "code"))
    status, body = anthropic.to_error(problem)
    assert status == (529 if kind is QueueFull else STATUSES[kind])
    assert (body["type"], set(body["error"])) == ("error", {"type", "message"})
    status, body = native.to_error(problem)
    assert (status, isinstance(body["detail"], str)) == (STATUSES[kind], True)


def test_the_known_sentence_comes_with_the_reason() -> None:
    problem = to_problem(ConversationNotFound("There is no session 'x'."))
    assert native.to_error(problem) == (
        404,
        {"detail": "Session not found", "reason": "There is no session 'x'."},
    )


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1", "error"),
        ("/v1/x", "error"),
        ("/v1x", "detail"),
        ("/", "detail"),
        ("/chat", "detail"),
    ],
)
def test_the_path_decides_the_dialect(path: str, key: str) -> None:
    replies = ErrorReplies([(openai.PREFIX, openai.to_error), (native.PREFIX, native.to_error)])
    assert key.encode() in replies.reply(path, Problem(404, "not_found", "Nothing.")).body


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (30, "30")])
def test_when_to_try_again_is_in_whole_seconds(seconds: float, header: str) -> None:
    replies = ErrorReplies([("", native.to_error)])
    error = RateLimited("Too fast.", retry_after_seconds=seconds)
    assert replies.reply("/chat", to_problem(error)).headers["retry-after"] == header


@pytest.mark.parametrize(("seconds", "again"), [(60, "true"), (61, "false"), (86400, "false")])
def test_nobody_tries_again_at_once_who_is_to_wait_for_long(seconds: float, again: str) -> None:
    """The vendors' clients wait for a minute at most, and longer ones they don't wait for."""
    replies = ErrorReplies([("", openai.to_error)])
    error = QuotaSpent("Spent.", retry_after_seconds=seconds)
    reply = replies.reply("/v1/x", to_problem(error))
    assert reply.headers["x-should-retry"] == again
    assert b'"insufficient_quota"' in reply.body


def test_a_503_always_says_when_to_try_again() -> None:
    replies = ErrorReplies([("", native.to_error)])
    headers = replies.reply("/chat", to_problem(EngineUnavailable("It stopped."))).headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("1", "true")
