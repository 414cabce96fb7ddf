"""A request on which engines die, with real engines that are killed while they answer it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.parley import Parley, running_parley
from tests.faults.streams import Stream, start_streams
from tests.faults.test_service import kill_engine
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]


@pytest.fixture
def parley(tmp_path: Path) -> Iterator[Parley]:
    with running_parley(tmp_path, "--model", "pocket") as service:
        service.wait_healthy()
        yield service


def kill_during_an_answer(service: Parley) -> None:
    (stream,) = start_streams(service.url, 1, 1500)
    kill_engine(service)
    assert stream.wait().error is not None
    service.wait_healthy()


def test_a_request_that_two_engines_died_on_is_refused_and_others_are_answered(
    parley: Parley,
) -> None:
    kill_during_an_answer(parley)
    kill_during_an_answer(parley)
    (refused,) = [stream.wait() for stream in start_streams(parley.url, 1, 1500)]
    assert refused.status == 400
    assert "Paris" in parley.chat("What is the capital of France?").text
    for _ in range(4):  # whichever worker it comes to
        reply = start_streams(parley.url, 1, 1500)[0].wait()
        assert reply.status == 400


def answered(parley: Parley) -> Stream:
    """A stream that was taken: the other worker may reach a new engine an instant later."""

    def ask() -> Stream:
        (stream,) = start_streams(parley.url, 1, 400)
        return stream.wait()

    return until(ask, lambda stream: stream.status != 503)


def test_a_request_that_only_was_there_is_answered_and_cleared(parley: Parley) -> None:
    (stream,) = start_streams(parley.url, 1, 400)
    kill_engine(parley)
    stream.wait()
    parley.wait_healthy()
    again = answered(parley)
    assert (again.finish_reason, again.completion_tokens) == ("length", 400)
    (stream,) = start_streams(parley.url, 1, 400)
    kill_engine(parley)
    stream.wait()
    parley.wait_healthy()
    assert answered(parley).finish_reason == "length"
