"""What was said, as a whole, on a real file."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState, KeptMessage, KeptResponse
from service.settings import Settings, StoreSettings
from service.store.archive import SqlArchive
from service.store.conversations import ABANDONED_SECONDS, SqlConversations
from service.store.database import Database, store_url
from service.store.responses import SqlResponses
from tests.fakes.clock import FakeClock


class TickingClock(FakeClock):
    """A second passes at each look."""

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parley.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    opened = Database(store_url(Settings(store=StoreSettings(url=f"sqlite:///{path}"))))
    opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def store(database: Database, clock: TickingClock) -> SqlConversations:
    return SqlConversations(database, clock)


@pytest.fixture
def archive(database: Database, clock: TickingClock) -> SqlArchive:
    return SqlArchive(database, clock)


async def say(
    store: SqlConversations, name: str, text: str, reply: str, principal: str = "me"
) -> int:
    key = await store.add_turn(principal, name, text)
    await store.write_answer(key, Message(Role.ASSISTANT, reply), AnswerState.COMPLETE)
    return key


async def test_a_conversation_is_called_by_its_first_words_until_it_is_renamed(
    store: SqlConversations, archive: SqlArchive
) -> None:
    await say(store, "a", "How do I\nbake bread?", "With flour.")
    await say(store, "a", "And cake?", "With sugar.")
    summary = await archive.summary("me", "a")
    assert summary is not None
    assert (summary.title, summary.num_turns) == ("How do I bake bread?", 2)
    assert await archive.rename("me", "a", "Baking")
    assert not await archive.rename("you", "a", "Mine")
    renamed = await archive.summary("me", "a")
    assert renamed is not None
    assert renamed.title == "Baking"


async def test_a_conversation_made_before_anything_is_said_is_called_by_what_comes(
    store: SqlConversations, archive: SqlArchive
) -> None:
    assert await archive.create("me", "a", "")
    assert not await archive.create("me", "a", "")
    await say(store, "a", "Hello there", "Hi.")
    summary = await archive.summary("me", "a")
    assert summary is not None
    assert summary.title == "Hello there"


async def test_pages_of_conversations_go_on_where_the_last_one_ended(
    store: SqlConversations, archive: SqlArchive
) -> None:
    for name in "abcde":
        await say(store, name, name, "yes")
    await say(store, "other", "secret", "yes", principal="you")
    first = await archive.summaries("me", 2)
    second = await archive.summaries("me", 2, before=first[-1].updated_at)
    assert [s.id for s in (*first, *second)] == ["e", "d", "c", "b"]


async def test_messages_come_in_pages_and_an_abandoned_answer_is_cut(
    store: SqlConversations, archive: SqlArchive, clock: TickingClock
) -> None:
    await say(store, "a", "one", "1")
    await store.add_turn("me", "a", "two")
    first = await archive.messages("me", "a", 3)
    assert [kept.message.content for kept in first] == ["one", "1", "two"]
    growing = (await archive.messages("me", "a", 3, after=first[-1].key))[0]
    assert growing.state is AnswerState.WRITING
    clock.now += ABANDONED_SECONDS + 1
    assert (await archive.messages("me", "a", 9))[-1].state is AnswerState.CUT
    assert await archive.messages("you", "a", 9) == []


async def test_an_answer_that_somebody_stopped_is_wanted_no_more(
    store: SqlConversations, archive: SqlArchive
) -> None:
    key = await store.add_turn("me", "a", "count")
    growing = Message(Role.ASSISTANT, "1 2")
    assert await store.write_answer(key, growing, AnswerState.WRITING)
    assert await archive.stop("you", "a") is None
    assert await archive.stop("me", "a") == 1
    assert not await store.write_answer(key, growing, AnswerState.WRITING)
    await store.write_answer(key, growing, AnswerState.CUT)
    assert await archive.stop("me", "a") == 0


async def test_an_answer_whose_conversation_is_gone_is_wanted_no_more(
    store: SqlConversations,
) -> None:
    key = await store.add_turn("me", "a", "count")
    await store.delete("me", "a")
    assert not await store.write_answer(key, Message(Role.ASSISTANT, "1"), AnswerState.WRITING)


async def test_a_fork_has_the_turns_up_to_there_and_goes_its_own_way(
    store: SqlConversations, archive: SqlArchive
) -> None:
    for text in ("one", "two", "three"):
        await say(store, "a", text, text.upper())
    await store.add_turn("me", "a", "four")
    assert await archive.fork("me", "a", "b", 2)
    assert await archive.fork("me", "a", "c", None)
    assert not await archive.fork("you", "a", "d", None)
    await say(store, "b", "else", "ELSE")

    async def said(name: str) -> list[str]:
        return [kept.message.content for kept in await archive.messages("me", name, 99)]

    assert await said("b") == ["one", "ONE", "two", "TWO", "else", "ELSE"]
    assert await said("c") == ["one", "ONE", "two", "TWO", "three", "THREE"]
    assert (await archive.search("me", ["else"], 9))[0].conversation_id == "b"


async def test_what_was_said_is_found_by_its_words(
    store: SqlConversations, archive: SqlArchive
) -> None:
    await say(store, "a", "Tell me of the Müller bakery", "It bakes bread in Zürich.")
    await say(store, "b", "bread and butter", "a fine breakfast")
    await say(store, "c", "bread of another", "person", principal="you")
    assert [h.conversation_id for h in await archive.search("me", ["bread"], 9)] == ["b", "a"]
    assert [h.snippet for h in await archive.search("me", ["zurich", "bread"], 9)] == [
        "It bakes bread in Zürich."
    ]
    assert {h.role for h in await archive.search("me", ["brea"], 9)} == {Role.USER, Role.ASSISTANT}
    assert await archive.search("me", ["butter", "bakery"], 9) == []
    assert await archive.search("me", ["person"], 9) == []


@pytest.mark.parametrize(
    "odd", ['"', "OR", "principal : you", "a* NEAR(b)", "';--", "^", "-x", "("]
)
async def test_no_word_is_an_operator_of_the_search(
    store: SqlConversations, archive: SqlArchive, odd: str
) -> None:
    await say(store, "c", "bread you", "x", principal="you")
    assert await archive.search("me", [odd], 9) == []


async def test_what_is_forgotten_is_not_found_and_not_in_the_index(
    store: SqlConversations, archive: SqlArchive, path: Path
) -> None:
    for name in "ab":
        await say(store, name, "canarybird", "canarybird")
    await store.delete("me", "a")
    assert len(await archive.search("me", ["canarybird"], 9)) == 2
    assert await archive.erase("me") == 1
    assert await archive.search("me", ["canarybird"], 9) == []
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM messages_text").fetchone() == (0,)


async def test_kept_responses_are_forgotten_with_the_rest(
    database: Database, archive: SqlArchive, clock: TickingClock
) -> None:
    responses = SqlResponses(database, clock)
    await responses.keep("me", KeptResponse("a", None, "[]", "{}"))
    await responses.keep("me", KeptResponse("b", "a", "[]", "{}"))
    assert [kept.id for kept in await responses.chain("me", "b", 9)] == ["a", "b"]
    assert await responses.chain("you", "b", 9) == []
    await archive.erase("you")
    assert await responses.chain("me", "a", 9)
    await archive.erase("me")
    assert await responses.chain("me", "a", 9) == []
    await responses.keep("me", KeptResponse("c", None, "[]", "{}"))
    clock.now += 1000
    await archive.forget_unused(500)
    assert await responses.chain("me", "c", 9) == []


async def test_what_nobody_used_for_long_is_forgotten(
    store: SqlConversations, archive: SqlArchive, clock: TickingClock
) -> None:
    await say(store, "old", "x", "y")
    clock.now += 1000
    await say(store, "new", "x", "y")
    assert await archive.forget_unused(500) == 1
    assert [s.id for s in await archive.summaries("me", 9)] == ["new"]


async def test_what_was_brought_along_is_there_with_its_times(
    store: SqlConversations, archive: SqlArchive
) -> None:
    await archive.create("me", "a", "Brought")
    said = [
        KeptMessage(0, 1, Message(Role.USER, "hi"), AnswerState.COMPLETE, 5.0),
        KeptMessage(0, 1, Message(Role.ASSISTANT, "ho"), AnswerState.COMPLETE, 6.0),
    ]
    await archive.add_messages("me", "a", said)
    kept = await archive.messages("me", "a", 9)
    assert [(k.message.content, k.created_at) for k in kept] == [("hi", 5.0), ("ho", 6.0)]
    assert len(await archive.search("me", ["ho"], 9)) == 1
    history = await store.history("me", "a", 9)
    assert history is not None
    assert history.num_exchanges == 1


@pytest.mark.slow
async def test_a_hundred_thousand_messages_are_listed_and_searched_in_20_ms(
    archive: SqlArchive, path: Path
) -> None:
    words = [f"word{n}" for n in range(2000)]
    with sqlite3.connect(path) as raw:
        raw.executemany(
            "INSERT INTO conversations (key, principal_id, id, created_at, updated_at, title) "
            "VALUES (?, ?, ?, ?, ?, 'a title')",
            ((n, f"p{n % 3}", f"c{n}", n, n) for n in range(1, 2001)),
        )
        raw.executemany(
            "INSERT INTO messages (conversation_key, turn, role, content, reasoning, state, "
            "created_at, updated_at) VALUES (?, ?, ?, ?, '', 'complete', 1, 1)",
            (
                (
                    1 + n % 2000,
                    1 + n // 4000,
                    "user" if n // 2000 % 2 == 0 else "assistant",
                    " ".join(words[(n * 7 + k * k) % 2000] for k in range(30)) + " common",
                )
                for n in range(100_000)
            ),
        )
    seconds = []
    for n in range(40):
        began = time.perf_counter()
        await archive.summaries("p1", 50, before=2000 - 7.0 * n)
        hits = await archive.search("p1", ["common", f"word{n}"], 20)
        seconds.append((time.perf_counter() - began) / 2)
        assert hits
    assert statistics.quantiles(seconds, n=20)[-1] <= 0.020
