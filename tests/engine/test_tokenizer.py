from __future__ import annotations

import threading
from dataclasses import dataclass, field

from service.domain.chat import Prompt
from service.engine.inbox import Inbox, Tokenized
from service.engine.sequence import Job
from service.engine.tokenizer import STACK_BYTES, Asked, Tokenizer
from service.ipc.messages import Counted, CountTokens, Refused, Tokenize
from tests.fakes.loop import FakeOutbox, submit
from tests.fakes.runner import FakeRunner

SECONDS = 60


def job(request_id: int, text: str) -> Job:
    return Job(1, submit(request_id, text), arrived=0.0)


def run(tokenizer: Tokenizer) -> None:
    """All that is queued, in this thread."""
    tokenizer.stop()
    tokenizer.run()


def results(inbox: Inbox) -> list[Tokenized]:
    found = []
    while not inbox.empty():
        command = inbox.get()
        assert isinstance(command, Tokenized)
        found.append(command)
    return found


def test_prompts_become_token_ids_in_the_order_they_came() -> None:
    inbox = Inbox()
    tokenizer = Tokenizer(FakeRunner(), inbox, FakeOutbox())
    for number, text in enumerate(["one", "two", "three"]):
        tokenizer.put(job(number, text))
    run(tokenizer)
    found = results(inbox)
    assert [r.job.submit.id for r in found] == [0, 1, 2]
    assert [bytes(r.token_ids) for r in found] == [b"one", b"two", b"three"]


def test_a_prompt_that_is_refused_does_not_end_the_thread() -> None:
    inbox = Inbox()
    tokenizer = Tokenizer(FakeRunner(max_prompt_bytes=3), inbox, FakeOutbox())
    tokenizer.put(job(1, "too long"))
    tokenizer.put(job(2, "ok"))
    run(tokenizer)
    refused, accepted = results(inbox)
    assert refused.error is not None
    assert "8 bytes" in refused.error.message
    assert (accepted.error, accepted.token_ids) == (None, list(b"ok"))


def test_tokens_are_counted_without_the_engine() -> None:
    outbox = FakeOutbox()
    tokenizer = Tokenizer(FakeRunner(max_prompt_bytes=3), Inbox(), outbox)
    tokenizer.put(Asked(1, CountTokens(7, job(7, "abc").submit.prompt)))
    tokenizer.put(Asked(1, CountTokens(8, job(8, "abcd").submit.prompt)))
    run(tokenizer)
    assert outbox.of(Counted) == [Counted(7, 3)]
    assert [r.id for r in outbox.of(Refused)] == [8]


def test_a_question_about_too_long_a_text_is_refused_with_the_limit() -> None:
    outbox = FakeOutbox()
    tokenizer = Tokenizer(FakeRunner(max_prompt_bytes=3), Inbox(), outbox)
    prompt = job(7, "abcd").submit.prompt
    tokenizer.put(Asked(1, Tokenize(7, prompt)))
    tokenizer.put(Asked(1, CountTokens(8, prompt)))
    run(tokenizer)
    said = {(r.id, r.code, r.message) for r in outbox.of(Refused)}
    sentence = "The prompt has 4 bytes; at most 3 are accepted."
    assert said == {(7, "invalid_request", sentence), (8, "invalid_request", sentence)}


@dataclass
class SlowRunner(FakeRunner):
    """Tokenizes when the test says so."""

    entered: threading.Event = field(default_factory=threading.Event)
    proceed: threading.Event = field(default_factory=threading.Event)
    texts: list[str] = field(default_factory=list)

    def tokenize(self, prompt: Prompt) -> list[int]:
        self.texts.append(prompt[0].text)
        self.entered.set()
        assert self.proceed.wait(SECONDS)
        return super().tokenize(prompt)


def test_a_job_that_is_cancelled_before_its_turn_is_not_tokenized() -> None:
    runner, inbox = SlowRunner(), Inbox()
    tokenizer = Tokenizer(runner, inbox, FakeOutbox())
    thread = tokenizer.start()
    first, second = job(1, "first"), job(2, "second")
    tokenizer.put(first)
    tokenizer.put(second)
    assert runner.entered.wait(SECONDS)
    assert tokenizer.backlog == 1
    second.cancelled = True
    runner.proceed.set()
    tokenizer.stop()
    thread.join(SECONDS)
    assert runner.texts == ["first"]
    assert [r.token_ids for r in results(inbox)] == [list(b"first"), []]


def test_only_this_thread_gets_the_huge_stack() -> None:
    before = threading.stack_size()
    tokenizer = Tokenizer(FakeRunner(), Inbox(), FakeOutbox())
    thread = tokenizer.start()
    tokenizer.stop()
    thread.join(SECONDS)
    assert (threading.stack_size(), before < STACK_BYTES) == (before, True)
