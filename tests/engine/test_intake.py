from __future__ import annotations

from service.engine.inbox import Arrived, Cancelled, Disconnected
from service.ipc.messages import Cancel, Detokenize, Refused, Tokenize
from service.settings import EngineSettings
from tests.fakes.loop import Loop, submit
from tests.fakes.runner import FakeRunner


def test_a_request_reaches_the_engine_before_its_tokens_do() -> None:
    loop = Loop()
    loop.intake.received(1, submit(5, "hi>"))
    command = loop.engine.inbox.get()
    assert isinstance(command, Arrived)
    assert (command.job.key, command.job.arrived) == ((1, 5), loop.clock())


def test_prompts_beyond_what_may_wait_are_refused_before_they_are_tokenized() -> None:
    loop = Loop(FakeRunner(num_slots=1), EngineSettings(max_waiting=2))
    for number in range(4):
        loop.intake.received(1, submit(number, "hi>"))
    (refused,) = loop.outbox.of(Refused)
    assert (refused.id, refused.code) == (3, "queue_full")
    assert refused.retry_after_seconds is not None


def test_questions_about_text_wait_in_the_same_line_and_are_refused_where_it_is_full() -> None:
    loop = Loop(FakeRunner(num_slots=1), EngineSettings(max_waiting=2))
    for number in range(3):
        loop.intake.received(1, Tokenize(number, submit(number, "hi>").prompt))
    loop.intake.received(1, Detokenize(3, (65,)))
    loop.intake.received(1, submit(4, "hi>"))
    assert [(r.id, r.code) for r in loop.outbox.of(Refused)] == [
        (3, "queue_full"),
        (4, "queue_full"),
    ]


def test_a_cancel_and_a_lost_worker_are_told_to_the_engine() -> None:
    loop = Loop()
    loop.intake.received(3, Cancel(9))
    loop.intake.disconnected(3)
    assert [loop.engine.inbox.get() for _ in range(2)] == [Cancelled((3, 9)), Disconnected(3)]


def test_cancelling_one_request_never_cuts_short_the_prompt_of_another() -> None:
    loop = Loop(FakeRunner(slot_length=200))
    loop.runner.during_prefill = lambda: loop.intake.received(1, Cancel(2))
    loop.ask(1, "x" * 40, max_tokens=1)
    loop.finish()
    assert [call for call in loop.runner.calls if call[0] == "prefill"] == [
        ("prefill", 0, 16),
        ("prefill", 0, 16),
        ("prefill", 0, 8),
    ]
