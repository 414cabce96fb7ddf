"""Chats that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.chat.conversations import Conversations, Turn
from service.chat.generate import Chat, collect
from service.domain.access import ANONYMOUS, Principal
from service.domain.chat import Message, PromptPiece
from service.domain.conversation import AnswerState, Exchange
from service.domain.errors import (
    ConversationNotFound,
    EngineUnavailable,
    InvalidRequest,
    QueueFull,
    StoreUnavailable,
)
from service.domain.events import Failed, Finished, TextDelta
from service.settings import ChatSettings, Settings, StoreSettings
from service.store.conversations import SqlConversations
from service.store.database import open_store
from tests.fakes.engine import FAKE_MODEL, FakeEngine

OTHER = Principal("other")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlConversations]:
    url = f"sqlite:///{tmp_path / 'parley.sqlite'}"
    opened = await open_store(Settings(store=StoreSettings(url=url)))
    yield opened
    await opened.aclose()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def conversations(engine: FakeEngine, store: SqlConversations) -> Conversations:
    return Conversations(Chat(engine, ChatSettings()), store, flush_seconds=0)


async def said(
    conversations: Conversations, text: str, conversation_id: str | None = "default"
) -> str:
    return (await collect(await conversations.start(Turn(text, conversation_id), ANONYMOUS))).text


def prompt_of(engine: FakeEngine, job: int = -1) -> str:
    return "".join(piece.text for piece in engine.jobs[job].prompt)


def user(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n"


def assistant(text: str) -> str:
    return f"<|im_start|>assistant\n{text}<|im_end|>\n"


async def kept(store: SqlConversations, conversation_id: str = "default") -> list[Exchange]:
    history = await store.history(ANONYMOUS.id, conversation_id, 100)
    return [] if history is None else list(history.exchanges)


class Unwritable:
    """A store whose disk is full from the second write on."""

    def __init__(self, store: SqlConversations) -> None:
        self.add_turn = store.add_turn
        self.history = store.history
        self.delete = store.delete
        self.list_ids = store.list_ids
        self.aclose = store.aclose
        self.last_exchange = store.last_exchange
        self.reopen = store.reopen
        self.settle_abandoned = store.settle_abandoned

    async def write_answer(self, key: int, answer: Message, state: AnswerState) -> bool:
        raise StoreUnavailable("The database can't be used now: database or disk is full.")


async def test_the_next_turn_continues_exactly_where_the_last_one_ended(
    conversations: Conversations, engine: FakeEngine
) -> None:
    engine.answers("Hello Ada.", "You are Ada.")
    await said(conversations, "I am Ada.")
    assert await said(conversations, "Who am I?") == "You are Ada."
    first, second = prompt_of(engine, 0), prompt_of(engine, 1)
    assert second.startswith(first + "Hello Ada.")
    assert second.endswith(user("Who am I?") + "<|im_start|>assistant\n")


async def test_a_turn_without_a_conversation_starts_one_and_says_which(
    conversations: Conversations,
) -> None:
    first = await conversations.start(Turn("Hi"), ANONYMOUS)
    second = await conversations.start(Turn("Hi"), ANONYMOUS)
    await collect(first)
    await collect(second)
    assert first.conversation_id != second.conversation_id
    listed = await conversations.list_ids(ANONYMOUS)
    assert listed == [second.conversation_id, first.conversation_id]


async def test_an_unknown_conversation_is_made_or_refused_as_the_turn_says(
    conversations: Conversations,
) -> None:
    await said(conversations, "Hi", "mine")
    with pytest.raises(ConversationNotFound, match=r"no conversation `yours`"):
        await conversations.start(Turn("Hi", "yours", create_missing=False), ANONYMOUS)
    assert await conversations.list_ids(ANONYMOUS) == ["mine"]


async def test_the_same_name_is_another_conversation_for_another_principal(
    conversations: Conversations, engine: FakeEngine
) -> None:
    await said(conversations, "My secret is 42.")
    await collect(await conversations.start(Turn("What is it?", "default"), OTHER))
    assert "42" not in prompt_of(engine)
    assert engine.jobs[-1].cache_key == "other"
    await conversations.clear("default", OTHER)
    assert await conversations.list_ids(ANONYMOUS) == ["default"]
    with pytest.raises(ConversationNotFound):
        await conversations.clear("default", OTHER)


async def test_only_the_last_exchanges_are_told_where_the_turn_limits_them(
    conversations: Conversations, engine: FakeEngine
) -> None:
    for number in range(4):
        await said(conversations, f"number {number}")
    generation = await conversations.start(Turn("and?", "default", history_exchanges=2), ANONYMOUS)
    assert generation.num_dropped_messages == 4
    assert prompt_of(engine).startswith(user("number 2"))


async def test_the_oldest_exchanges_that_do_not_fit_the_context_are_left_out(
    store: SqlConversations,
) -> None:
    engine = FakeEngine(replace(FAKE_MODEL, context_length=160), answer="word " * 10)
    conversations = Conversations(Chat(engine, ChatSettings()), store)
    for number in range(9):
        await said(conversations, f"number {number}")
    generation = await conversations.start(Turn("last", "default"), ANONYMOUS)
    assert 0 < generation.num_dropped_messages < 18
    assert generation.prompt_tokens <= 160 - 40
    dropped = generation.num_dropped_messages // 2
    assert prompt_of(engine).startswith(user(f"number {dropped}"))
    longer = "".join(user(f"number {n}") + assistant("word " * 10) for n in range(dropped - 1, 9))
    text = longer + user("last") + "<|im_start|>assistant\n"
    counted = await engine.count_tokens((PromptPiece(text, trusted=True),))
    assert counted > 160 - 40


async def test_the_system_prompt_stays_when_history_goes(
    conversations: Conversations, engine: FakeEngine
) -> None:
    for _ in range(2):
        await collect(
            await conversations.start(
                Turn("Hi", "default", history_exchanges=0, system_prompt="Be kind."), ANONYMOUS
            )
        )
    assert prompt_of(engine).startswith("<|im_start|>system\nBe kind.<|im_end|>\n" + user("Hi"))


async def test_the_answer_is_kept_before_its_end_is_told(
    conversations: Conversations, store: SqlConversations
) -> None:
    generation = await conversations.start(Turn("Hi", "default"), ANONYMOUS)
    async for event in generation:
        if isinstance(event, Finished):
            assert [e.answer.content for e in await kept(store)] == ["Hello there, friend."]
            assert [e.state for e in await kept(store)] == [AnswerState.COMPLETE]


async def test_an_answer_that_is_closed_early_is_kept_as_far_as_it_got(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.paced = True
    async with await conversations.start(Turn("Hi", "default"), ANONYMOUS) as generation:
        await engine.write(2)
        events = aiter(generation)
        assert [await anext(events), await anext(events)] == [
            TextDelta("Hello"),
            TextDelta(" there,"),
        ]
    assert len(engine.cancelled) == 1
    assert [(e.answer.content, e.state) for e in await kept(store)] == [
        ("Hello there,", AnswerState.CUT)
    ]


async def test_an_answer_that_breaks_is_kept_as_far_as_it_got(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "default"), ANONYMOUS)
    await engine.write(1)
    engine.dies()
    events = [event async for event in generation]
    assert events[0] == TextDelta("Hello")
    assert isinstance(events[1], Failed)
    assert isinstance(events[1].error, EngineUnavailable)
    assert [e.answer.content for e in await kept(store)] == ["Hello"]


async def test_a_refused_turn_leaves_nothing_behind(
    conversations: Conversations, engine: FakeEngine
) -> None:
    engine.refuses(QueueFull("64 requests are waiting."))
    with pytest.raises(QueueFull):
        await conversations.start(Turn("Hi", "default"), ANONYMOUS)
    assert await conversations.list_ids(ANONYMOUS) == []


async def test_two_turns_at_once_are_kept_in_the_order_in_which_they_began(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.paced = True
    engine.answers("one", "two")
    first = await conversations.start(Turn("first", "default"), ANONYMOUS)
    second = await conversations.start(Turn("second", "default"), ANONYMOUS)
    engine.running[1].write(1)
    await collect(second)
    engine.running[0].write(1)
    await collect(first)
    assert [(e.user.content, e.answer.content) for e in await kept(store)] == [
        ("first", "one"),
        ("second", "two"),
    ]
    assert "first" not in prompt_of(engine)
    engine.paced = False
    await said(conversations, "third")
    assert prompt_of(engine).startswith(
        user("first") + assistant("one") + user("second") + assistant("two")
    )


async def test_a_growing_answer_is_in_the_store_while_it_grows(
    engine: FakeEngine, store: SqlConversations
) -> None:
    written: asyncio.Queue[tuple[str, AnswerState]] = asyncio.Queue()

    class Watched(Unwritable):
        async def write_answer(self, key: int, answer: Message, state: AnswerState) -> bool:
            wanted = await store.write_answer(key, answer, state)
            written.put_nowait((answer.content, state))
            return wanted

    conversations = Conversations(Chat(engine, ChatSettings()), Watched(store), flush_seconds=0)
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "default"), ANONYMOUS)
    answer = asyncio.create_task(collect(generation))
    await engine.write(1)
    assert await written.get() == ("Hello", AnswerState.WRITING)
    await engine.write(2)
    await answer
    last = await written.get()
    while not written.empty():
        last = written.get_nowait()
    assert last == ("Hello there, friend.", AnswerState.COMPLETE)


async def test_an_answer_that_could_not_be_kept_says_so(
    engine: FakeEngine, store: SqlConversations
) -> None:
    conversations = Conversations(Chat(engine, ChatSettings()), Unwritable(store))
    generation = await conversations.start(Turn("Hi", "default"), ANONYMOUS)
    events = [event async for event in generation]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Hello there, friend."
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, StoreUnavailable)
    await generation.aclose()


async def test_clearing_while_an_answer_is_written_forgets_it_for_good(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "default"), ANONYMOUS)
    await conversations.clear("default", ANONYMOUS)
    await engine.write(3)
    # Whoever clears it wants no more of it: it may end before what was left has been written.
    assert "Hello there, friend.".startswith((await collect(generation)).text)
    assert await conversations.list_ids(ANONYMOUS) == []


async def test_a_thought_is_kept_beside_its_answer_and_not_told_again(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.answers("<think>\nhmm\n</think>\n\nYes.")
    await said(conversations, "Sure?")
    assert (await kept(store))[0].answer.reasoning == "hmm"
    await said(conversations, "Really?")
    assert "hmm" not in prompt_of(engine)


def test_a_conversation_id_of_unusable_characters_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="session_id must be 1 to 128 characters"):
        Turn("Hi", "../etc")
