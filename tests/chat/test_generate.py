"""Answering a chat."""

from __future__ import annotations

import asyncio

import pytest

from service.chat.generate import Chat, collect
from service.domain.access import ANONYMOUS
from service.domain.chat import ChatRequest, Message, Role
from service.domain.errors import EngineUnavailable, ModelNotFound, QueueFull
from service.domain.events import Failed, Finished, FinishReason, TextDelta
from service.settings import ChatSettings
from tests.fakes.engine import FakeEngine


def ask(text: str, model: str | None = None, max_tokens: int | None = None) -> ChatRequest:
    return ChatRequest((Message(Role.USER, text),), model=model, max_tokens=max_tokens)


def chat_with(engine: FakeEngine) -> Chat:
    return Chat(engine, ChatSettings())


async def test_an_answer_arrives_word_by_word_and_says_how_it_ended() -> None:
    engine = FakeEngine(answer="Paris is it.")
    generation = await chat_with(engine).start(ask("Where?"), ANONYMOUS)
    events = [event async for event in generation]
    assert events[:-1] == [TextDelta("Paris"), TextDelta(" is"), TextDelta(" it.")]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.STOP


async def test_closing_a_generation_cancels_it() -> None:
    engine = FakeEngine()
    engine.paced = True
    async with await chat_with(engine).start(ask("Hi"), ANONYMOUS) as generation:
        await engine.write(1)
        async for event in generation:
            assert event == TextDelta("Hello")
            break
    assert engine.cancelled == engine.jobs


async def test_thoughts_are_told_from_the_answer() -> None:
    engine = FakeEngine(answer="<think>\nhmm\n</think>\n\nYes.")
    answer = await collect(await chat_with(engine).start(ask("?"), ANONYMOUS))
    assert (answer.reasoning, answer.text) == ("hmm", "Yes.")


async def test_an_engine_that_dies_in_mid_answer_is_an_event() -> None:
    engine = FakeEngine()
    engine.paced = True
    generation = await chat_with(engine).start(ask("Hi"), ANONYMOUS)
    reading = asyncio.ensure_future(anext(aiter(generation)))
    await engine.write(1)
    assert await reading == TextDelta("Hello")
    engine.dies()
    last = await anext(aiter(generation))
    assert isinstance(last, Failed)
    assert isinstance(last.error, EngineUnavailable)


async def test_refusals_are_raised_before_anything_is_sent() -> None:
    engine = FakeEngine()
    engine.refuses(QueueFull("64 requests are waiting already.", retry_after_seconds=2))
    with pytest.raises(QueueFull):
        await chat_with(engine).start(ask("Hi"), ANONYMOUS)
    with pytest.raises(ModelNotFound, match=r"`gpt-9` does not exist; this service serves `fake`"):
        await chat_with(engine).start(ask("Hi", model="gpt-9"), ANONYMOUS)
    engine.dies()
    with pytest.raises(EngineUnavailable):
        await chat_with(engine).start(ask("Hi"), ANONYMOUS)
