"""Answering a chat."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.chat.generate import Chat, collect
from service.domain.access import ANONYMOUS, Principal
from service.domain.chat import ChatRequest, Message, Role
from service.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
)
from service.domain.events import Failed, Finished, FinishReason, ReasoningDelta, TextDelta
from service.domain.model import Mode
from service.domain.sampling import Sampling
from service.settings import ChatSettings
from tests.fakes.engine import FAKE_MODEL, FakeEngine


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


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " b", "\n", "é"]), max_size=12))
@settings(deadline=None)
def test_the_collected_answer_is_the_stream_put_together(parts: list[str]) -> None:
    async def both() -> None:
        engine = FakeEngine()
        engine.answers("".join(parts), "".join(parts))
        chat = chat_with(engine)
        events = [event async for event in await chat.start(ask("Hi"), ANONYMOUS)]
        answer = await collect(await chat.start(ask("Hi"), ANONYMOUS))
        assert answer.text == "".join(e.text for e in events if isinstance(e, TextDelta))
        assert answer.reasoning == "".join(e.text for e in events if isinstance(e, ReasoningDelta))
        assert answer.finished == events[-1]

    asyncio.run(both())


async def test_a_request_that_meets_a_switch_is_rendered_anew_for_the_new_model() -> None:
    old = FakeEngine()
    new = FakeEngine(
        replace(FAKE_MODEL, name="new", chat_template="new: {{ messages[0].content }}")
    )

    class Switching(FakeEngine):
        def current(self, mode: Mode = Mode.CHAT) -> FakeEngine:
            return old if not old.refused else new

    old.refuses(EngineUnavailable("This engine is shutting down."))
    generation = await Chat(Switching(), ChatSettings()).start(ask("Hi"), ANONYMOUS)
    assert generation.model.name == "new"
    assert new.jobs[0].prompt[0].text == "new: Hi"


async def test_an_engine_that_refuses_without_a_successor_has_the_last_word() -> None:
    engine = FakeEngine()
    engine.refuses(EngineUnavailable("This engine is shutting down."))
    with pytest.raises(EngineUnavailable, match="shutting down"):
        await chat_with(engine).start(ask("Hi"), ANONYMOUS)


async def test_the_configured_model_s_name_is_served_by_its_stand_in() -> None:
    engine = FakeEngine()
    engine.status = replace(engine.status, wanted_model="qwen")
    for name in (None, "fake", "qwen"):
        generation = await chat_with(engine).start(ask("Hi", model=name), ANONYMOUS)
        assert generation.model.name == "fake"


async def test_the_stand_in_s_name_still_works_once_the_configured_model_answers() -> None:
    engine = FakeEngine()
    engine.status = replace(engine.status, wanted_model="fake", stand_in_model="pocket")
    generation = await chat_with(engine).start(ask("Hi", model="pocket"), ANONYMOUS)
    assert generation.model.name == "fake"


async def test_after_a_switch_the_configured_model_s_name_means_the_new_one() -> None:
    engine = FakeEngine()
    engine.status = replace(engine.status, wanted_model="fake", configured_model="qwen")
    generation = await chat_with(engine).start(ask("Hi", model="qwen"), ANONYMOUS)
    assert generation.model.name == "fake"
    with pytest.raises(ModelNotFound, match="`other` does not exist; this service serves `fake`"):
        await chat_with(engine).start(ask("Hi", model="other"), ANONYMOUS)


async def test_too_many_messages_are_refused() -> None:
    chat = Chat(FakeEngine(), ChatSettings(max_messages=2))
    request = ChatRequest((Message(Role.USER, "Hi"),) * 3)
    with pytest.raises(InvalidRequest, match="messages has 3 entries; at most 2 are accepted"):
        await chat.start(request, ANONYMOUS)


async def test_a_job_carries_all_that_was_asked_for_and_whose_cache_it_may_use() -> None:
    engine = FakeEngine()
    request = ChatRequest(
        (Message(Role.USER, "Hi"),),
        sampling=Sampling(temperature=0.5),
        max_tokens=1,
        stop=("!",),
        request_id="r1",
    )
    answer = await collect(await chat_with(engine).start(request, Principal("me")))
    assert answer.finished.reason is FinishReason.LENGTH
    job = engine.jobs[0]
    assert (job.request_id, job.max_tokens, job.stop) == ("r1", 1, ("!",))
    assert (job.sampling.temperature, job.cache_key) == (0.5, "me")


async def test_a_stop_string_is_told_only_if_the_caller_named_it() -> None:
    bare = replace(FAKE_MODEL, chat_template=None, control_tokens=())
    engine = FakeEngine(bare, answer="Yes. Stop here.\nUser: and then?")
    plain = await collect(await chat_with(engine).start(ask("Hi"), ANONYMOUS))
    assert (plain.text, plain.finished.stop_sequence) == ("Yes. Stop here.", None)
    request = ChatRequest((Message(Role.USER, "Hi"),), stop=("Stop",))
    stopped = await collect(await chat_with(engine).start(request, ANONYMOUS))
    assert (stopped.text, stopped.finished.stop_sequence) == ("Yes. ", "Stop")


async def test_tokens_of_a_thought_are_counted_apart() -> None:
    engine = FakeEngine(answer="<think>let me see</think> Yes.")
    answer = await collect(await chat_with(engine).start(ask("Hi"), ANONYMOUS))
    assert answer.finished.usage.reasoning_tokens == 3
    assert answer.finished.usage.completion_tokens == 4


async def test_thinking_is_off_unless_the_request_or_the_operator_says_so() -> None:
    model = replace(FAKE_MODEL, chat_template="{{ messages[0].content }}{{ enable_thinking }}")
    engine = FakeEngine(model)

    async def thought(setting: bool, asked: bool | None) -> bool:
        chat = Chat(engine, ChatSettings(thinking=setting))
        request = ChatRequest((Message(Role.USER, "Hi"),), thinking=asked)
        await collect(await chat.start(request, ANONYMOUS))
        return engine.jobs[-1].prompt[0].text == "HiTrue"

    assert not await thought(setting=False, asked=None)
    assert await thought(setting=True, asked=None)
    assert await thought(setting=False, asked=True)
    assert not await thought(setting=True, asked=False)


async def test_a_very_long_request_is_rendered_all_the_same() -> None:
    engine = FakeEngine(replace(FAKE_MODEL, context_length=10**6))
    text = "word " * 20_000
    request = ask(text)
    assert await chat_with(engine).count_tokens(request) > 20_000
    await collect(await chat_with(engine).start(request, ANONYMOUS))
    assert text in engine.jobs[0].prompt[0].text


async def test_a_prompt_that_is_too_long_is_a_matter_of_the_messages() -> None:
    engine = FakeEngine()
    engine.refuses(ContextLengthExceeded("The prompt has 9 tokens; the context holds 8."))
    with pytest.raises(ContextLengthExceeded) as refused:
        await chat_with(engine).start(ask("Hi"), ANONYMOUS)
    assert refused.value.param == "messages"
