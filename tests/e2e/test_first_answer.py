"""From `parley serve` to an answer, through every process, on the real Pocket model."""

from __future__ import annotations

import concurrent.futures
import threading
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.e2e.parley import Parley, running_parley, stream_text
from tests.questions import QUESTIONS
from tests.waiting import until

pytestmark = pytest.mark.model


def test_a_question_is_answered(parley: Parley) -> None:
    reply = parley.chat("What is the capital of France?")
    assert reply.status_code == 200
    body = reply.json()
    assert "Paris" in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_says_what_the_whole_answer_says(parley: Parley) -> None:
    whole = parley.chat("Count from 1 to 10.").json()["choices"][0]["message"]["content"]
    assert stream_text(parley.url, "Count from 1 to 10.") == whole


def test_eight_streams_started_apart_each_get_the_text_they_get_alone(parley: Parley) -> None:
    alone = [stream_text(parley.url, question) for question in QUESTIONS]

    begun = [threading.Event() for _ in QUESTIONS]

    def late(turn: int) -> str:
        """Arrives once the one before is being answered."""
        assert turn == 0 or begun[turn - 1].wait(120)
        return stream_text(parley.url, QUESTIONS[turn], on_begin=begun[turn].set)

    with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(late, range(len(QUESTIONS))))
    assert together == alone
    assert all(alone)


def test_the_next_turn_of_a_conversation_is_not_read_again(parley: Parley) -> None:
    first = [{"role": "user", "content": "My name is Alice. Please remember it."}]
    answer = parley.chat("", messages=first).json()
    follow_up = [
        *first,
        answer["choices"][0]["message"],
        {"role": "user", "content": "What is my name?"},
    ]
    second = parley.chat("", messages=follow_up).json()
    assert "Alice" in second["choices"][0]["message"]["content"]
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= answer["usage"]["prompt_tokens"]


def test_a_seed_makes_a_warm_answer_repeat_itself(parley: Parley) -> None:
    answers = {
        parley.chat("Tell me a story.", temperature=1.5, seed=seed).json()["choices"][0]["message"][
            "content"
        ]
        for seed in (7, 7, 7)
    }
    assert len(answers) == 1


def test_both_seed_vocabularies_are_answered(parley: Parley) -> None:
    old = httpx.post(parley.url + "/chat", json={"user_input": "Hello!"}, timeout=60)
    assert (old.status_code, list(old.json())) == (200, ["reply"])
    new = httpx.post(parley.url + "/chat", json={"message": "Hello!"}, timeout=60)
    assert new.status_code == 200
    assert set(new.json()) == {"response", "session_id", "tokens_used"}


def test_a_session_remembers_across_workers_and_requests(parley: Parley) -> None:
    told = httpx.post(
        parley.url + "/chat",
        json={"message": "My name is Alice. Please remember it.", "temperature": 0},
        timeout=60,
    ).json()
    for _ in range(4):  # whichever worker answers
        asked = httpx.post(
            parley.url + "/chat",
            json={
                "message": "What is my name?",
                "session_id": told["session_id"],
                "temperature": 0,
            },
            timeout=60,
        ).json()
        assert "Alice" in asked["response"]


def test_metrics_tell_tokens_and_their_rate(parley: Parley) -> None:
    parley.chat("Count from 1 to 10.")
    for name in (
        "parley_generated_tokens_total",
        "parley_generation_tokens_per_second",
        "parley_time_to_first_token_seconds_bucket",
        "llamacpp:tokens_predicted_total",
    ):
        # The engine tells what it has done when it has done it, which may be after the answer.
        until(lambda: parley.get("/metrics").text, partial(has_count, name))


def has_count(name: str, metrics: str) -> bool:
    lines = [line for line in metrics.splitlines() if line.startswith(name)]
    return any(not line.endswith(" 0.0") for line in lines)


def test_health_names_the_model(parley: Parley) -> None:
    body = parley.get("/health").json()
    assert (body["status"], body["model_loaded"], body["model"]) == ("healthy", True, "pocket")


def test_wrong_bodies_are_refused_and_the_next_request_works(parley: Parley) -> None:
    wrong: list[tuple[str, bytes, set[int]]] = [
        ("/chat", b'{"message": ""}', {400}),
        ("/chat", b"{}", {422}),
        ("/chat", b'{"message": "a", "user_input": "b"}', {422}),
        ("/chat", b"\xff\xfe{", {400, 422}),
        ("/chat", b'{"message": "' + b"a" * 10_000_000 + b'"}', {413}),
        ("/chat", b'{"message": "a", "temperature": 9}', {400, 422}),
        ("/v1/chat/completions", b'{"messages": []}', {400}),
        ("/v1/chat/completions", b"not json", {400}),
        (
            "/v1/chat/completions",
            b'{"messages": [{"role": "user", "content": "a"}], "temperature": 9}',
            {400},
        ),
        (
            "/v1/chat/completions",
            b'{"model": "gpt-9", "messages": [{"role": "user", "content": "a"}]}',
            {404},
        ),
    ]
    for path, body, expected in wrong:
        reply = httpx.post(
            parley.url + path,
            content=body,
            headers={"content-type": "application/json"},
            timeout=60,
        )
        assert reply.status_code in expected, (path, body[:60], reply.status_code, reply.text[:300])
        if path.startswith("/v1"):
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        else:
            assert "detail" in reply.json()
    assert parley.chat("Hello!").status_code == 200


def test_nothing_that_was_said_is_in_the_log(parley: Parley) -> None:
    parley.chat("canary-7f3a: what is the capital of France?")
    assert "canary-7f3a" not in parley.log.read_text()


def test_a_stopped_service_leaves_nothing_behind(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    with running_parley(
        tmp_path, "--model", "pocket", environment={"PARLEY_RUNTIME_DIR": str(runtime)}
    ) as service:
        service.wait_healthy()
        assert service.stop() == 0
    assert not runtime.exists() or not list(runtime.iterdir())
