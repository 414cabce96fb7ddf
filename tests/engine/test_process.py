"""The engine as a process: the real model, a real socket, real signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.domain.chat import PromptPiece
from service.domain.events import FinishReason
from service.domain.sampling import Sampling
from service.ipc.messages import Accepted, Cancel, Counted, CountTokens, Refused
from tests.engine.process import SECONDS, Engine, prompt_of, running_engine
from tests.questions import QUESTIONS

pytestmark = pytest.mark.model

# An answer that is still being written when the test has got to its next line.
ENDLESS: dict[str, Any] = {
    "sampling": Sampling(temperature=0, ignore_eos=True),
    "max_tokens": 1900,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as process:
        process.next_event("ready")
        yield process


def test_eight_streams_that_join_one_another_finish_with_the_text_each_gets_alone(
    engine: Engine,
) -> None:
    alone = [
        engine.connect().answer(number, question, cache_key=f"alone {number}")
        for number, question in enumerate(QUESTIONS)
    ]
    client = engine.connect()
    for number, question in enumerate(QUESTIONS):
        client.submit(number, question, cache_key=f"together {number}")
        client.wait_begun(number)
    client.wait(*range(8))
    assert [client.texts[number] for number in range(8)] == alone
    assert all(alone)


def test_a_second_turn_is_read_from_where_the_first_ended(engine: Engine) -> None:
    client = engine.connect()
    first = "My name is Alice. Please remember it."
    answer = client.answer(1, first, cache_key="turns")
    reply = client.answer(2, first, answer, "What is my name?", cache_key="turns")
    assert "Alice" in reply
    # All of the first prompt but its empty thought, which the template leaves out of the past.
    shared = client.dones[1].usage.prompt_tokens - len("<think>\n\n</think>\n\n")
    assert client.dones[2].usage.cached_tokens >= shared
    again = client.answer(3, first, answer, "What is my name?", cache_key="elsewhere")
    assert (again, client.dones[3].usage.cached_tokens) == (reply, 0)


def test_counting_agrees_with_what_a_request_is_charged(engine: Engine) -> None:
    client = engine.connect()
    client.send(CountTokens(1, prompt_of("Count from 1 to 10.")))
    counted = client.reply(1)
    client.answer(2, "Count from 1 to 10.")
    assert isinstance(counted, Counted)
    assert counted.num_tokens == client.dones[2].usage.prompt_tokens


def test_a_cancelled_stream_ends_at_once(engine: Engine) -> None:
    client = engine.connect()
    client.submit(1, "Tell me a story.", **ENDLESS)
    client.wait_begun(1)
    client.send(Cancel(1))
    client.wait(1)
    assert client.dones[1].reason is FinishReason.CANCELLED


def test_a_megabyte_of_one_letter_is_refused_while_others_are_answered(engine: Engine) -> None:
    client = engine.connect()
    client.submit(1, "a" * 1_000_000)
    answer = client.answer(2, "What is the capital of France?")
    assert "Paris" in answer
    refused = client.reply(1)
    assert isinstance(refused, Refused)
    assert refused.code == "context_length_exceeded"
    assert "2048" in refused.message


def test_a_heartbeat_tells_what_the_engine_does(engine: Engine) -> None:
    beat = engine.next_event("heartbeat")
    assert set(beat) == {"event", "steps", "running", "waiting", "step_seconds"}


def test_after_sigterm_what_runs_is_finished_and_nothing_new_begins(tmp_path: Path) -> None:
    with running_engine(tmp_path, PARLEY_DRAIN_SECONDS="300") as engine:
        engine.next_event("ready")
        client = engine.connect()
        for number, question in enumerate(QUESTIONS[:7]):
            client.submit(number, question)
        client.submit(7, QUESTIONS[7], **ENDLESS)
        assert isinstance(client.reply(7), Accepted)
        engine.process.send_signal(signal.SIGTERM)
        while client.link.fileno() >= 0 and "engine_draining" not in engine.log.read_text():
            client.read(0.01)
        client.submit(100, "Hello!")
        refused = client.reply(100)
        assert isinstance(refused, Refused)
        assert refused.code == "engine_unavailable"
        client.wait(*range(8))
        assert {client.dones[n].reason for n in range(7)} == {FinishReason.STOP}
        assert client.dones[7].usage.completion_tokens == ENDLESS["max_tokens"]
        assert engine.process.wait(SECONDS) == 0
        assert not engine.socket.exists()


def test_at_the_drain_deadline_every_stream_gets_a_well_formed_end(tmp_path: Path) -> None:
    with running_engine(tmp_path, PARLEY_DRAIN_SECONDS="3") as engine:
        engine.next_event("ready")
        client = engine.connect()
        for number in range(8):
            client.submit(number, "Tell me a story.", **ENDLESS)
        for number in range(8):
            client.wait_begun(number)
        engine.process.send_signal(signal.SIGTERM)
        client.wait(*range(8))
        assert {client.dones[n].reason for n in range(8)} == {FinishReason.SHUTDOWN}
        assert engine.process.wait(SECONDS) == 0


def test_a_second_sigterm_ends_the_process_at_once(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        engine.next_event("ready")
        client = engine.connect()
        client.submit(1, "Tell me a story.", **ENDLESS)
        client.wait_begun(1)
        engine.process.send_signal(signal.SIGTERM)
        while "engine_draining" not in engine.log.read_text():
            client.read(0.01)
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(SECONDS) == 0
        assert "engine_stopped_at_once" in engine.log.read_text()
        assert not engine.socket.exists()


def test_sigterm_while_the_model_loads_ends_the_process_at_once(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        engine.next_event("progress")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(SECONDS) == 0
        assert not engine.socket.exists()


def test_a_worker_that_dies_frees_its_slots(engine: Engine) -> None:
    victim, other = engine.connect(), engine.connect()
    for number in range(8):
        victim.submit(number, "Tell me a story.", **ENDLESS)
    for number in range(8):
        victim.wait_begun(number)
    victim.link.close()
    other.answer(1, "Hello!")
    assert other.dones[1].timings.queue_seconds < SECONDS / 2
    while engine.next_event("heartbeat")["running"]:
        pass


def test_a_model_that_cannot_be_loaded_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "not.gguf").write_bytes(b"this is no model")
    with running_engine(tmp_path, model=tmp_path / "not.gguf") as engine:
        failed = engine.next_event("failed")
        assert engine.process.wait(SECONDS) == 2
        assert str(tmp_path / "not.gguf") in failed["reason"]
        assert "Traceback" not in engine.log.read_text()


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with running_engine(tmp_path, PARLEY_ENGINE__SLOTS="0") as engine:
        assert "PARLEY_ENGINE__SLOTS" in engine.next_event("failed")["reason"]
        assert engine.process.wait(SECONDS) == 2


def test_text_from_people_cannot_become_a_control_token(engine: Engine) -> None:
    client = engine.connect()
    spelled = (PromptPiece("<|im_end|>", trusted=False),)
    meant = (PromptPiece("<|im_end|>", trusted=True),)
    client.send(CountTokens(1, spelled))
    client.send(CountTokens(2, meant))
    first, second = client.reply(1), client.reply(2)
    assert isinstance(first, Counted)
    assert isinstance(second, Counted)
    assert first.num_tokens > second.num_tokens == 1
