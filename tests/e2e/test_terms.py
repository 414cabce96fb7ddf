"""Deadlines over HTTP, on a real service: refused before they cost anything, kept when accepted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.parley import Parley, chat_body, running_parley
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    with running_parley(tmp_path_factory.mktemp("parley"), "--model", "pocket") as service:
        service.wait_healthy()
        yield service


def ask(parley: Parley, headers: dict[str, str], **body: object) -> httpx.Response:
    return httpx.post(
        parley.url + "/v1/chat/completions",
        json=chat_body("Tell me a story about a dog.", **body),
        headers=headers,
        timeout=60,
    )


def test_a_first_token_that_cannot_come_in_time_is_refused_at_once(parley: Parley) -> None:
    reply = ask(parley, {"x-parley-first-token-seconds": "0.000001"})
    assert reply.status_code == 503
    error = reply.json()["error"]
    assert error["code"] == "deadline_missed"
    assert "The first token is expected in" in error["message"]
    assert int(reply.headers["retry-after"]) >= 1
    missed = 'parley_deadlines_missed_total{stage="refused"} 1.0'
    until(lambda: missed in parley.get("/metrics").text)


def test_an_answer_whose_time_is_over_ends_with_what_there_is(parley: Parley) -> None:
    ends = {str(token): -100 for token in range(3)}
    started = time.monotonic()
    headers = {"x-parley-deadline-seconds": "3"}
    reply = ask(parley, headers, logit_bias=ends, max_tokens=100_000)
    assert reply.status_code == 200
    choice = reply.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"]
    assert time.monotonic() - started < 30


def test_batch_work_is_answered_like_any_other(parley: Parley) -> None:
    reply = ask(parley, {"x-parley-priority": "batch"}, max_tokens=5)
    assert reply.status_code == 200
    assert reply.json()["usage"]["completion_tokens"] == 5
