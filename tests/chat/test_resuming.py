"""Answers that outlive whoever asked, and answers that are gone on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.chat.conversations import Conversations, Turn
from service.chat.detached import Detached
from service.chat.generate import Chat, collect
from service.domain.access import ANONYMOUS, Principal
from service.domain.conversation import AnswerState
from service.domain.errors import Conflict, ConversationNotFound
from service.settings import ChatSettings, Settings
from service.store.archive import SqlArchive
from service.store.conversations import SqlConversations
from service.store.database import Database, open_database
from tests.fakes.engine import FakeEngine


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(Settings(state_dir=tmp_path))
    yield opened
    await opened.aclose()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def store(database: Database) -> SqlConversations:
    return SqlConversations(database)


@pytest.fixture
def conversations(engine: FakeEngine, store: SqlConversations) -> Conversations:
    return Conversations(Chat(engine, ChatSettings()), store, flush_seconds=0.01)


async def last_answer(store: SqlConversations) -> tuple[str, AnswerState]:
    last = await store.last_exchange(ANONYMOUS.id, "chat")
    assert last is not None
    return last.exchange.answer.content, last.exchange.state


async def cut_after(num_tokens: int, conversations: Conversations, engine: FakeEngine) -> None:
    """A turn whose answer is left off after so many tokens."""
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "chat"), ANONYMOUS)
    events = aiter(generation)
    await engine.write(num_tokens)
    for _ in range(num_tokens):
        await anext(events)
    await generation.aclose()
    engine.paced = False


async def test_a_detached_answer_is_written_to_its_end_when_nobody_listens(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "chat", detached=True), ANONYMOUS)
    assert isinstance(generation, Detached)
    await engine.write(1)
    await generation.aclose()
    await engine.write(2)
    await generation.task
    assert not engine.cancelled
    assert await last_answer(store) == ("Hello there, friend.", AnswerState.COMPLETE)


async def test_a_detached_answer_is_heard_by_who_stays(conversations: Conversations) -> None:
    generation = await conversations.start(Turn("Hi", "chat", detached=True), ANONYMOUS)
    assert (await collect(generation)).text == "Hello there, friend."


async def test_a_detached_answer_is_stopped_from_elsewhere_even_before_it_begins(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations, database: Database
) -> None:
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "chat", detached=True), ANONYMOUS)
    assert isinstance(generation, Detached)
    await generation.aclose()
    assert await SqlArchive(database).stop(ANONYMOUS.id, "chat") == 1
    await asyncio.wait_for(generation.task, 60)
    assert (await last_answer(store))[1] is AnswerState.CUT


async def test_the_end_of_the_worker_cuts_what_is_still_being_written(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "chat", detached=True), ANONYMOUS)
    await engine.write(1)
    await generation.aclose()
    settling = asyncio.create_task(conversations.settle())
    await settling
    assert (await last_answer(store))[1] is AnswerState.CUT
    assert len(engine.cancelled) == 1


async def test_an_answer_goes_on_where_it_was_cut(
    conversations: Conversations, engine: FakeEngine, store: SqlConversations
) -> None:
    await cut_after(2, conversations, engine)
    assert await last_answer(store) == ("Hello there,", AnswerState.CUT)
    engine.answers(" old friend.")
    generation = await conversations.resume(Turn(".", "chat"), ANONYMOUS)
    answer = await collect(generation)
    assert answer.text == " old friend."
    assert await last_answer(store) == ("Hello there, old friend.", AnswerState.COMPLETE)
    prompt = "".join(piece.text for piece in engine.jobs[-1].prompt)
    assert prompt.endswith("<|im_start|>assistant\nHello there,")
    assert prompt.count("Hi") == 1
    told = await conversations.told(Turn(".", "chat"), ANONYMOUS)
    assert [e.answer.content for e in told] == ["Hello there, old friend."]


async def test_what_is_being_written_or_unknown_is_not_gone_on_with(
    conversations: Conversations, engine: FakeEngine
) -> None:
    with pytest.raises(ConversationNotFound):
        await conversations.resume(Turn(".", "chat"), ANONYMOUS)
    engine.paced = True
    generation = await conversations.start(Turn("Hi", "chat"), ANONYMOUS)
    with pytest.raises(Conflict, match="is being written just now"):
        await conversations.resume(Turn(".", "chat"), ANONYMOUS)
    assert len(engine.cancelled) == 1  # the attempt, and not the answer
    with pytest.raises(ConversationNotFound):
        await conversations.resume(Turn(".", "chat"), Principal("somebody-else"))
    await generation.aclose()


async def test_what_a_crash_cut_is_settled_and_found(
    store: SqlConversations, database: Database
) -> None:
    key = await store.add_turn(ANONYMOUS.id, "chat", "Hi")
    last = await store.last_exchange(ANONYMOUS.id, "chat")
    assert last is not None
    said = last.exchange.user
    await store.write_answer(key, said, AnswerState.WRITING)
    assert await store.settle_abandoned() == 0  # it may still be written
    assert await store.settle_abandoned(seconds=0) == 1
    assert len(await SqlArchive(database).search(ANONYMOUS.id, ["hi"], 9)) == 2
