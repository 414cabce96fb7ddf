"""What engines died on is not given to the next one for ever, and nobody else suffers for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as renewed

from service.domain.chat import PromptPiece
from service.domain.errors import PoisonousRequest
from service.domain.sampling import Sampling
from service.ipc.client import ConnectedEngines, EngineStream, connect_engines
from service.ipc.messages import Done, Submit
from service.ipc.status import EngineState
from service.ipc.suspects import DIRECTORY, MEMORY_SECONDS, Suspects, digest_of
from tests.ipc.peers import EnginePeer, SupervisorPeer, serving

BAD = Submit(0, "req-1", (PromptPiece("Crash!", trusted=True),), Sampling(), cache_key="eve")
GOOD = renewed(BAD, request_id="req-2", prompt=(PromptPiece("Hi", trusted=True),))


class Service:
    """A worker (or two) and engines that follow one another as they die."""

    def __init__(self, directory: Path, supervisor: SupervisorPeer) -> None:
        self.directory = directory
        self.supervisor = supervisor
        self.engine = EnginePeer(directory / "engine-1.sock")
        self.number = 1

    async def begin(self) -> ConnectedEngines:
        await self.engine.listen()
        self.supervisor.announce(serving(self.engine.status(1)))
        return await self.worker()

    async def worker(self) -> ConnectedEngines:
        worker = connect_engines(self.supervisor.socket, resubmit_seconds=20)
        await worker.settled(20)
        return worker

    async def crash(self, *workers: ConnectedEngines) -> None:
        """The engine dies, the supervisor says so, and the next one is ready."""
        self.engine.die()
        crashed = (*self.supervisor.present.crashed, self.number)
        dead = self.engine.status(self.number, EngineState.RESTARTING)
        self.supervisor.announce(replace(serving(dead, current=None), crashed=crashed))
        for worker in workers:
            while worker.status.current is not None:
                await worker.news()
        self.number += 1
        self.engine = EnginePeer(self.directory / f"engine-{self.number}.sock")
        await self.engine.listen()
        ready = serving(self.engine.status(self.number), current=self.number)
        self.supervisor.announce(replace(ready, crashed=crashed))
        for worker in workers:
            while worker.status.current != self.number:
                await worker.news()


@pytest.fixture
async def service(tmp_path: Path, supervisor: SupervisorPeer) -> AsyncIterator[Service]:
    made = Service(tmp_path, supervisor)
    yield made
    made.engine.die()


async def accepted(service: Service, worker: ConnectedEngines, job: Submit) -> EngineStream:
    submitting = asyncio.create_task(worker.current().submit(job))
    await service.engine.accept()
    return await submitting


async def last_word(stream: EngineStream) -> Done:
    last = [message async for message in stream][-1]
    assert isinstance(last, Done)
    return last


async def test_a_request_that_was_there_at_two_crashes_is_refused(service: Service) -> None:
    worker = await service.begin()
    stream = await accepted(service, worker, BAD)
    reading = asyncio.create_task(last_word(stream))
    await service.crash(worker)
    await service.engine.accept()  # it had no token yet, so it is sent again, once
    await service.crash(worker)
    done = await reading
    assert (done.error_code, "died 2 times" in done.error_message) == ("poisonous_request", True)
    with pytest.raises(PoisonousRequest):
        await worker.current().submit(renewed(BAD, request_id="req-9"))
    assert service.engine.received.empty()
    other = await service.worker()
    with pytest.raises(PoisonousRequest):
        await other.current().submit(BAD)
    await accepted(service, worker, GOOD)
    await accepted(service, worker, renewed(BAD, cache_key="alice"))
    await worker.aclose()
    await other.aclose()


async def test_the_client_s_own_second_try_counts_too(service: Service) -> None:
    worker = await service.begin()
    for _ in range(2):
        stream = await accepted(service, worker, BAD)
        service.engine.write(1, "Hello")
        await anext(aiter(stream))  # after the first token nothing is sent again
        await service.crash(worker)
        await last_word(stream)
    with pytest.raises(PoisonousRequest):
        await worker.current().submit(BAD)
    await worker.aclose()


async def test_who_is_answered_after_the_crash_is_no_suspect_any_more(service: Service) -> None:
    worker = await service.begin()
    stream = await accepted(service, worker, GOOD)
    reading = asyncio.create_task(last_word(stream))
    await service.crash(worker)
    service.engine.finish(await service.engine.accept())
    assert (await reading).error_code is None
    assert list((service.directory / DIRECTORY).iterdir()) == []
    stream = await accepted(service, worker, GOOD)
    reading = asyncio.create_task(last_word(stream))
    await service.crash(worker)
    service.engine.finish(await service.engine.accept())
    assert (await reading).error_code is None
    await worker.aclose()


async def test_suspects_are_tried_one_at_a_time_so_that_the_innocent_are_found_out(
    service: Service,
) -> None:
    worker = await service.begin()
    jobs = [BAD, *(renewed(GOOD, cache_key=name) for name in ("alice", "bob", "carol"))]
    streams = [await accepted(service, worker, job) for job in jobs]
    readings = [asyncio.create_task(last_word(stream)) for stream in streams]
    await service.crash(worker)
    endings: list[str] = []
    while len(endings) < len(jobs):
        submit = await service.engine.next(Submit)
        assert service.engine.received.empty()  # alone
        endings.append(submit.cache_key)
        if submit.prompt == BAD.prompt:
            await service.crash(worker)
        else:
            service.engine.received.put_nowait(submit)
            service.engine.finish(await service.engine.accept())
    codes = [(await reading).error_code for reading in readings]
    assert codes == ["poisonous_request", None, None, None]
    await worker.aclose()


async def test_new_requests_do_not_wait_behind_suspects(service: Service) -> None:
    worker = await service.begin()
    stream = await accepted(service, worker, BAD)
    reading = asyncio.create_task(last_word(stream))
    await service.crash(worker)
    await service.engine.accept()
    service.engine.finish((await accepted(service, worker, GOOD)).accepted.id)
    reading.cancel()
    await stream.aclose()
    await worker.aclose()


async def test_an_engine_that_left_as_it_was_told_to_is_no_crash(service: Service) -> None:
    worker = await service.begin()
    stream = await accepted(service, worker, BAD)
    service.engine.die()
    reading = asyncio.create_task(last_word(stream))
    service.engine = EnginePeer(service.directory / "engine-2.sock")
    await service.engine.listen()
    service.supervisor.announce(serving(service.engine.status(2), current=2))
    service.engine.finish(await service.engine.accept())
    assert (await reading).error_code is None
    assert not (service.directory / DIRECTORY).exists()
    await worker.aclose()


def test_a_crash_is_forgotten_after_a_while(tmp_path: Path) -> None:
    now = [1000.0]
    suspects = Suspects(tmp_path, clock=lambda: now[0])
    submit = BAD
    for engine_id in (1, 2):
        mark = tmp_path / f"{digest_of(submit)}.{engine_id}"
        mark.touch()
        os.utime(mark, (1000, 1000))
    assert suspects.num_crashes(submit) == 2
    now[0] += MEMORY_SECONDS + 1
    assert suspects.num_crashes(submit) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_same_request_has_the_same_digest_whenever_it_is_asked() -> None:
    again = renewed(BAD, request_id="req-77", deadline_seconds=3.0)
    assert digest_of(BAD) == digest_of(again)
    for other in (
        renewed(BAD, cache_key="alice"),
        renewed(BAD, sampling=Sampling(temperature=0.1)),
        renewed(BAD, max_tokens=3),
        GOOD,
    ):
        assert digest_of(BAD) != digest_of(other)
