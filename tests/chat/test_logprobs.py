"""Which tokens are told of with which text."""

from __future__ import annotations

from service.chat.generate import collect
from service.chat.logprobs import AnswerLogprobs
from service.domain.access import ANONYMOUS
from service.domain.chat import ChatRequest, Message, Role
from service.domain.events import Candidate, ReasoningDelta, TextDelta, TokenLogprob, ToolCallDelta
from tests.chat.test_generate import chat_with
from tests.fakes.engine import FakeEngine


def tokens(*texts: str | bytes) -> list[TokenLogprob]:
    data = [text.encode() if isinstance(text, str) else text for text in texts]
    return [TokenLogprob(Candidate(i, text, -1.0)) for i, text in enumerate(data)]


def of(delta: object) -> bytes:
    assert isinstance(delta, TextDelta)
    return b"".join(entry.chosen.text for entry in delta.logprobs)


def test_a_text_is_told_of_with_its_tokens() -> None:
    (delta,) = AnswerLogprobs().attach([TextDelta("Hello")], tokens("Hel", "lo"))
    assert of(delta) == b"Hello"


def test_tokens_wait_for_text_that_comes_later() -> None:
    logprobs = AnswerLogprobs()
    assert logprobs.attach([], tokens("<th")) == []
    (delta,) = logprobs.attach([TextDelta("<that")], tokens("at"))
    assert of(delta) == b"<that"
    (delta,) = logprobs.attach([TextDelta("!")], tokens("!"))
    assert of(delta) == b"!"


def test_tokens_of_a_thought_and_around_it_are_not_the_answers() -> None:
    logprobs = AnswerLogprobs()
    assert logprobs.attach([], tokens("<think>"), thinking=True) == []
    assert logprobs.attach([ReasoningDelta("hm")], tokens("hm"), thinking=True) == [
        ReasoningDelta("hm")
    ]
    assert logprobs.attach([], tokens("</think>", "\n\n")) == []
    (delta,) = logprobs.attach([TextDelta("Yes")], tokens("Yes"))
    assert of(delta) == b"Yes"


def test_tokens_of_a_call_are_not_the_answers() -> None:
    logprobs = AnswerLogprobs()
    logprobs.attach([ToolCallDelta(0, "call_1", "f")], tokens("<tool_call>"))
    (delta,) = logprobs.attach([TextDelta("Done")], tokens("Done"))
    assert of(delta) == b"Done"


def test_half_a_character_belongs_to_the_text_it_becomes() -> None:
    logprobs = AnswerLogprobs()
    assert logprobs.attach([], tokens(b"\xf0\x9f")) == []
    (delta,) = logprobs.attach([TextDelta("😀")], tokens(b"\x98\x80"))
    assert of(delta) == "😀".encode()


async def test_a_whole_answer_has_those_of_its_text() -> None:
    engine = FakeEngine(answer="<think>\nhmm so\n</think>\n\nYes it is.")
    request = ChatRequest((Message(Role.USER, "?"),), logprobs=2)
    answer = await collect(await chat_with(engine).start(request, ANONYMOUS))
    assert b"".join(e.chosen.text for e in answer.logprobs).strip() == answer.text.encode()
    assert all(len(entry.top) == 2 for entry in answer.logprobs)
