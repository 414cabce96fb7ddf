"""Several answers to one request."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from service.chat.choices import Choices, Start, start_choices
from service.chat.generate import Chat, Generation
from service.domain.access import ANONYMOUS
from service.domain.chat import ChatRequest, Message, Role
from service.domain.errors import EngineUnavailable, QueueFull
from service.domain.events import Failed, Finished, OfChoice, TextDelta
from service.domain.sampling import Sampling
from tests.chat.test_generate import chat_with
from tests.fakes.engine import FakeEngine


def starts(chat: Chat, text: str = "Hi there") -> Start:
    def start(sampling: Sampling) -> Awaitable[Generation]:
        request = ChatRequest((Message(Role.USER, text),), sampling=sampling)
        return chat.start(request, ANONYMOUS)

    return start


async def three(engine: FakeEngine, seed: int | None = 5) -> Choices:
    return await start_choices([starts(chat_with(engine))], Sampling(seed=seed), 3)


async def test_each_choice_is_told_of_under_its_number_and_the_end_counts_the_prompt_once() -> None:
    engine = FakeEngine()
    engine.answers("a b", "c", "d e f")
    async with await three(engine) as choices:
        events = [event async for event in choices]
    texts = ["", "", ""]
    for event in events:
        if isinstance(event, OfChoice) and isinstance(event.event, TextDelta):
            texts[event.choice] += event.event.text
    assert texts == ["a b", "c", "d e f"]
    ends = [e for e in events if isinstance(e, OfChoice) and isinstance(e.event, Finished)]
    assert sorted(end.choice for end in ends) == [0, 1, 2]
    last = events[-1]
    assert isinstance(last, Finished)
    one = ends[0].event
    assert isinstance(one, Finished)
    assert last.usage.prompt_tokens == one.usage.prompt_tokens
    assert last.usage.completion_tokens == 6


async def test_seeds_follow_the_requests_own() -> None:
    engine = FakeEngine()
    async with await three(engine, seed=2**64 - 1):
        assert [job.sampling.seed for job in engine.jobs] == [2**64 - 1, 0, 1]
    async with await three(engine, seed=None):
        assert [job.sampling.seed for job in engine.jobs[3:]] == [None, None, None]


async def test_leaving_cancels_all() -> None:
    engine = FakeEngine()
    engine.paced = True
    async with await three(engine) as choices:
        await engine.write(1)
        async for event in choices:
            assert isinstance(event, OfChoice)
            break
    assert engine.cancelled == engine.jobs


async def test_the_refusal_of_one_refuses_and_closes_all() -> None:
    engine = FakeEngine()
    engine.paced = True
    chat = chat_with(engine)

    async def second_refused(sampling: Sampling) -> Generation:
        if engine.jobs:
            engine.refuses(QueueFull("no room", retry_after_seconds=1))
        return await starts(chat)(sampling)

    with pytest.raises(QueueFull, match="no room"):
        await start_choices([second_refused], Sampling(), 3)
    assert len(engine.jobs) == 1
    assert engine.cancelled == engine.jobs


async def test_the_failure_of_one_ends_all() -> None:
    engine = FakeEngine()
    engine.paced = True
    async with await three(engine) as choices:
        await engine.write(1)
        engine.dies()
        events = [event async for event in choices]
    assert isinstance(events[-1], Failed)
    with pytest.raises(EngineUnavailable):
        await three(engine)


async def test_whole_answers_come_in_order_and_several_prompts_are_counted_each_once() -> None:
    engine = FakeEngine()
    engine.answers("a", "b", "c", "d")
    chat = chat_with(engine)
    both = [starts(chat, "one"), starts(chat, "two words")]
    choices = await start_choices(both, Sampling(), 2)
    answers = await choices.answers()
    assert [answer.text for answer in answers] == ["a", "b", "c", "d"]
    usage = choices.usage([answer.finished for answer in answers])
    prompts = [answers[0].finished.usage.prompt_tokens, answers[2].finished.usage.prompt_tokens]
    assert (usage.prompt_tokens, usage.completion_tokens) == (sum(prompts), 4)
