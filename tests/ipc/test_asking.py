"""Questions to engines of other modes, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from service.domain.errors import EngineUnavailable, GenerationFailed, QueueFull
from service.domain.model import Mode
from service.ipc.client import ConnectedEngines, EngineClient, connect_engines
from service.ipc.messages import Cancel, Embed, Embedded, Refused
from service.ipc.status import EngineStatus, ServiceStatus
from tests.fakes.companion import EMBEDDER
from tests.ipc.peers import EnginePeer, SupervisorPeer, serving

QUESTION = Embed(0, "r", ("one", "two"))


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[EnginePeer]:
    async with EnginePeer(tmp_path / "engine-1.sock") as peer:
        yield peer


@pytest.fixture
async def embedder(tmp_path: Path) -> AsyncIterator[EnginePeer]:
    async with EnginePeer(tmp_path / "engine-2.sock", EMBEDDER) as peer:
        yield peer


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[EnginePeer]:
    async with EnginePeer(tmp_path / "engine-3.sock", EMBEDDER) as peer:
        yield peer


def embedding(peer: EnginePeer, number: int) -> EngineStatus:
    return replace(peer.status(number), mode=Mode.EMBED, is_current=True)


def status(chat: EnginePeer, *embedders: EngineStatus) -> ServiceStatus:
    return serving(chat.status(1), *embedders)


@pytest.fixture
async def engines(
    supervisor: SupervisorPeer, chat: EnginePeer, embedder: EnginePeer
) -> AsyncIterator[ConnectedEngines]:
    """A worker that has reached the engine that embeds."""
    supervisor.announce(status(chat, embedding(embedder, 2)))
    connected = connect_engines(supervisor.socket, resubmit_seconds=20)
    await reached(connected)
    yield connected
    await connected.aclose()


async def reached(engines: ConnectedEngines) -> EngineClient:
    while True:
        try:
            return engines.current(Mode.EMBED)
        except EngineUnavailable:
            await engines.news()


def answer(peer: EnginePeer, asked: Embed) -> None:
    """In two frames."""
    peer.say(Embedded(asked.id, (b"1111",), (1,), last=False))
    peer.say(Embedded(asked.id, (b"2222",), (1,), last=True))


async def test_an_answer_in_several_frames_comes_whole(
    engines: ConnectedEngines, embedder: EnginePeer
) -> None:
    asking = asyncio.create_task(engines.current(Mode.EMBED).ask(QUESTION))
    asked = await embedder.next(Embed)
    assert msgspec.structs.replace(asked, id=0) == QUESTION
    answer(embedder, asked)
    frames = await asking
    assert [vector for f in frames if isinstance(f, Embedded) for vector in f.vectors] == [
        b"1111",
        b"2222",
    ]
    assert embedder.received.empty()


async def test_a_question_that_is_given_up_is_cancelled_in_the_engine(
    engines: ConnectedEngines, embedder: EnginePeer
) -> None:
    asking = asyncio.create_task(engines.current(Mode.EMBED).ask(QUESTION))
    asked = await embedder.next(Embed)
    embedder.say(Embedded(asked.id, (b"1111",), (1,), last=False))
    asking.cancel()
    assert await embedder.next(Cancel) == Cancel(asked.id)


async def test_a_refusal_is_the_error_that_the_engine_meant(
    engines: ConnectedEngines, embedder: EnginePeer
) -> None:
    asking = asyncio.create_task(engines.current(Mode.EMBED).ask(QUESTION))
    asked = await embedder.next(Embed)
    embedder.say(Refused(asked.id, "queue_full", "Full.", retry_after_seconds=4.0))
    with pytest.raises(QueueFull, match="Full") as refused:
        await asking
    assert refused.value.retry_after_seconds == 4.0


async def test_a_question_whose_engine_dies_is_asked_of_the_next_one_of_its_mode(
    engines: ConnectedEngines,
    supervisor: SupervisorPeer,
    chat: EnginePeer,
    embedder: EnginePeer,
    second: EnginePeer,
) -> None:
    asking = asyncio.create_task(engines.current(Mode.EMBED).ask(QUESTION))
    asked = await embedder.next(Embed)
    embedder.say(Embedded(asked.id, (b"half",), (1,), last=False))
    embedder.die()
    supervisor.announce(status(chat, embedding(second, 3)))
    answer(second, await second.next(Embed))
    frames = await asking
    assert [vector for f in frames if isinstance(f, Embedded) for vector in f.vectors] == [
        b"1111",
        b"2222",
    ]
    assert chat.received.empty()


async def test_a_question_that_two_engines_died_of_is_refused(
    engines: ConnectedEngines,
    supervisor: SupervisorPeer,
    chat: EnginePeer,
    embedder: EnginePeer,
    second: EnginePeer,
) -> None:
    asking = asyncio.create_task(engines.current(Mode.EMBED).ask(QUESTION))
    await embedder.next(Embed)
    embedder.die()
    supervisor.announce(status(chat, embedding(second, 3)))
    await second.next(Embed)
    second.die()
    with pytest.raises(GenerationFailed, match="twice"):
        await asking


async def test_what_a_draining_engine_refuses_goes_to_its_successor(
    engines: ConnectedEngines,
    supervisor: SupervisorPeer,
    chat: EnginePeer,
    embedder: EnginePeer,
    second: EnginePeer,
) -> None:
    asking = asyncio.create_task(engines.current(Mode.EMBED).ask(QUESTION))
    asked = await embedder.next(Embed)
    embedder.say(Refused(asked.id, "engine_unavailable", "It drains."))
    supervisor.announce(status(chat, embedding(second, 3)))
    answer(second, await second.next(Embed))
    assert len(await asking) == 2
