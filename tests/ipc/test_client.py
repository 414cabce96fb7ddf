"""The workers' end, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain.chat import PromptPiece
from service.domain.errors import Conflict, ContextLengthExceeded, EngineUnavailable, QueueFull
from service.domain.events import FinishReason
from service.domain.sampling import Sampling
from service.ipc.client import ConnectedEngines, EngineStream, connect_engines
from service.ipc.command import SwitchCommand, accepted_line, refused_line, send_command
from service.ipc.messages import Cancel, Counted, CountTokens, Delta, Done, Queued, Refused, Submit
from service.ipc.status import (
    DownloadStatus,
    EngineState,
    Phase,
    ServiceStatus,
    SwitchPhase,
    SwitchStatus,
)
from tests.fakes.engine import FAKE_MODEL
from tests.ipc.peers import CommandPeer, EnginePeer, SupervisorPeer, serving

JOB = Submit(0, "req-1", (PromptPiece("Hi", trusted=True),), Sampling(temperature=0), max_tokens=5)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EnginePeer]:
    async with EnginePeer(tmp_path / "engine-1.sock") as peer:
        yield peer


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[EnginePeer]:
    async with EnginePeer(tmp_path / "engine-2.sock") as peer:
        yield peer


@pytest.fixture
async def engines(
    supervisor: SupervisorPeer, engine: EnginePeer
) -> AsyncIterator[ConnectedEngines]:
    """A worker that has reached engine 1."""
    supervisor.announce(serving(engine.status(1)))
    connected = connect_engines(supervisor.socket, resubmit_seconds=20)
    await connected.settled(20)
    yield connected
    await connected.aclose()


async def until_current(engines: ConnectedEngines, engine_id: int | None) -> None:
    while engines.status.current != engine_id:
        await engines.news()


async def rest_of(stream: EngineStream) -> list[Queued | Delta | Done]:
    return [message async for message in stream]


def texts(messages: list[Queued | Delta | Done]) -> str:
    return "".join(m.text for m in messages if isinstance(m, Delta))


async def test_a_job_is_sent_whole_and_its_progress_comes_back_in_order(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    submit = await engine.next(Submit)
    assert submit == Submit(1, "req-1", JOB.prompt, JOB.sampling, 5, (), "")
    engine.received.put_nowait(submit)
    job_id = await engine.accept()
    stream = await submitting
    assert stream.accepted.prompt_tokens == 7
    engine.write(job_id, "Hel", "lo")
    engine.finish(job_id)
    messages = await rest_of(stream)
    assert texts(messages) == "Hello"
    assert isinstance(messages[-1], Done)
    assert messages[-1].reason is FinishReason.STOP


async def test_jobs_at_once_get_their_own_text(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    tasks = [asyncio.create_task(engines.current().submit(JOB)) for _ in range(3)]
    ids = [await engine.accept() for _ in tasks]
    streams = await asyncio.gather(*tasks)
    for turn in range(4):
        for job_id in ids:
            engine.write(job_id, f"{job_id}.{turn} ")
    for job_id in ids:
        engine.finish(job_id)
    answers = [texts(await rest_of(stream)) for stream in streams]
    assert sorted(answers) == sorted("".join(f"{i}.{t} " for t in range(4)) for i in ids)


async def test_a_slow_reader_finds_its_deltas_merged_and_none_missing(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    job_id = await engine.accept()
    stream = await submitting
    engine.write(job_id, *(f"{n} " for n in range(1000)))
    engine.finish(job_id)
    counting = asyncio.create_task(engines.current().count_tokens(JOB.prompt))
    count = await engine.next(CountTokens)
    engine.say(Counted(count.id, 2))
    assert await counting == 2  # so all that was said before it has arrived
    messages = await rest_of(stream)
    assert len(messages) == 2
    assert texts(messages) == "".join(f"{n} " for n in range(1000))
    assert isinstance(messages[0], Delta)
    assert messages[0].num_tokens == 1000


async def test_a_refusal_is_the_error_that_the_engine_meant(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    submit = await engine.next(Submit)
    engine.say(Refused(submit.id, "queue_full", "64 are waiting.", None, 2.5))
    with pytest.raises(QueueFull, match=r"64 are waiting\.") as caught:
        await submitting
    assert caught.value.retry_after_seconds == 2.5
    counting = asyncio.create_task(engines.current().count_tokens(JOB.prompt))
    count = await engine.next(CountTokens)
    engine.say(Refused(count.id, "context_length_exceeded", "Too long.", "messages"))
    with pytest.raises(ContextLengthExceeded) as refused:
        await counting
    assert refused.value.param == "messages"


async def test_closing_a_stream_cancels_its_job(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    job_id = await engine.accept()
    stream = await submitting
    engine.write(job_id, "one")
    assert await anext(aiter(stream)) == Delta(job_id, "one", 1)
    await stream.aclose()
    await stream.aclose()
    assert await engine.next(Cancel) == Cancel(job_id)
    assert await rest_of(stream) == []
    assert engine.received.empty()


async def test_giving_up_before_the_engine_has_accepted_cancels_the_job(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    submit = await engine.next(Submit)
    submitting.cancel()
    assert await engine.next(Cancel) == Cancel(submit.id)
    with pytest.raises(asyncio.CancelledError):
        await submitting


async def test_closing_a_finished_stream_says_nothing(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    job_id = await engine.accept()
    stream = await submitting
    engine.finish(job_id)
    await rest_of(stream)
    await stream.aclose()
    await engines.aclose()
    assert engine.received.empty()


async def test_a_reader_is_released_when_another_task_closes_its_stream(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    await engine.accept()
    stream = await submitting
    reading = asyncio.create_task(rest_of(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    assert await reading == []


async def test_an_engine_that_dies_in_mid_answer_ends_it_with_an_error_at_once(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    job_id = await engine.accept()
    stream = await submitting
    engine.write(job_id, "one")
    assert await anext(aiter(stream)) == Delta(job_id, "one", 1)
    engine.die()
    last = await anext(aiter(stream))
    assert isinstance(last, Done)
    assert last.error_code == "engine_unavailable"
    assert last.error_message == "The engine stopped before the answer was complete."
    assert last.usage.completion_tokens == 1
    with pytest.raises(EngineUnavailable, match="restarting after a failure"):
        engines.current()
    assert engines.status.current is None


async def test_a_job_without_text_is_sent_again_when_its_engine_dies(
    engines: ConnectedEngines,
    engine: EnginePeer,
    second: EnginePeer,
    supervisor: SupervisorPeer,
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    await engine.accept()
    stream = await submitting
    reading = asyncio.create_task(rest_of(stream))
    engine.die()
    supervisor.announce(serving(second.status(2), current=2))
    job_id = await second.accept()
    second.write(job_id, "Hello")
    second.finish(job_id)
    assert texts(await reading) == "Hello"


async def test_a_job_that_was_not_accepted_yet_is_sent_again_too(
    engines: ConnectedEngines,
    engine: EnginePeer,
    second: EnginePeer,
    supervisor: SupervisorPeer,
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    await engine.next(Submit)
    engine.die()
    supervisor.announce(serving(second.status(2), current=2))
    job_id = await second.accept()
    stream = await submitting
    second.finish(job_id)
    assert len(await rest_of(stream)) == 1


async def test_a_job_is_sent_again_once_and_no_more(
    engines: ConnectedEngines,
    engine: EnginePeer,
    second: EnginePeer,
    supervisor: SupervisorPeer,
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    await engine.next(Submit)
    engine.die()
    supervisor.announce(serving(second.status(2), current=2))
    await second.accept()
    stream = await submitting
    second.die()
    (last,) = await rest_of(stream)
    assert isinstance(last, Done)
    assert last.error_code == "engine_unavailable"


async def test_a_job_is_not_sent_to_an_engine_with_another_model(
    engines: ConnectedEngines, engine: EnginePeer, second: EnginePeer, supervisor: SupervisorPeer
) -> None:
    second.model = replace(FAKE_MODEL, name="another")
    submitting = asyncio.create_task(engines.current().submit(JOB))
    await engine.next(Submit)
    engine.die()
    supervisor.announce(serving(second.status(2), current=2))
    with pytest.raises(EngineUnavailable):
        await submitting
    assert second.received.empty()


async def test_a_job_that_waits_for_another_engine_can_be_given_up(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    await engine.accept()
    stream = await submitting
    reading = asyncio.create_task(rest_of(stream))
    engine.die()
    await until_current(engines, None)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await stream.aclose()


async def test_what_a_draining_engine_refuses_goes_to_the_one_that_took_over(
    engines: ConnectedEngines,
    engine: EnginePeer,
    second: EnginePeer,
    supervisor: SupervisorPeer,
) -> None:
    client = engines.current()
    old, new = engine.status(1, EngineState.DRAINING), second.status(2)
    submitting = asyncio.create_task(client.submit(JOB))
    submit = await engine.next(Submit)
    engine.say(Refused(submit.id, "engine_unavailable", "This engine is shutting down."))
    supervisor.announce(serving(old, new, current=2))
    job_id = await second.accept()
    stream = await submitting
    second.finish(job_id)
    assert len(await rest_of(stream)) == 1


async def test_a_switch_leaves_running_answers_alone_and_sends_new_ones_to_the_new_engine(
    engines: ConnectedEngines,
    engine: EnginePeer,
    second: EnginePeer,
    supervisor: SupervisorPeer,
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    job_id = await engine.accept()
    running = await submitting
    second.model = replace(FAKE_MODEL, name="another")
    supervisor.announce(serving(engine.status(1, EngineState.DRAINING), second.status(2)))
    supervisor.change(current=2)
    await until_current(engines, 2)
    assert engines.current().model.name == "another"
    engine.write(job_id, "still here")
    engine.finish(job_id)
    assert texts(await rest_of(running)) == "still here"


async def test_an_engine_that_only_dropped_the_connection_is_reached_again(
    engines: ConnectedEngines, engine: EnginePeer
) -> None:
    engine.hang_up()
    await until_current(engines, None)
    await until_current(engines, 1)
    submitting = asyncio.create_task(engines.current().submit(JOB))
    engine.finish(await engine.accept())
    assert len(await rest_of(await submitting)) == 1


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (ServiceStatus(), "The service is starting."),
        (
            serving(EnginePeer(Path("e")).status(1, EngineState.LOADING), current=None),
            r"The model `fake` is loading \(100%\)\.",
        ),
        (
            ServiceStatus(download=DownloadStatus("big", 250, 1000)),
            r"The model `big` is being downloaded \(25%\)\.",
        ),
        (
            ServiceStatus(download=DownloadStatus("big", 3_000_000)),
            r"The model `big` is being downloaded \(2.9 MiB so far\)\.",
        ),
        (
            serving(EnginePeer(Path("e")).status(1, EngineState.RESTARTING), current=None),
            r"The engine is restarting after a failure\.",
        ),
        (
            serving(EnginePeer(Path("e")).status(1, EngineState.DRAINING), current=None),
            r"The service is switching models\.",
        ),
        (ServiceStatus(notice="The file is broken."), r"The file is broken\."),
        (
            ServiceStatus(Phase.DRAINING),
            r"The service is shutting down and takes no new requests\.",
        ),
    ],
)
async def test_a_refusal_says_why_there_is_no_engine(
    supervisor: SupervisorPeer, status: ServiceStatus, sentence: str
) -> None:
    supervisor.announce(replace(status, retry_after_seconds=4.0))
    engines = connect_engines(supervisor.socket)
    await engines.settled(20)
    with pytest.raises(EngineUnavailable, match=f"^{sentence}$") as caught:
        engines.current()
    assert caught.value.retry_after_seconds == 4.0
    await engines.aclose()


async def test_while_the_service_drains_running_answers_go_on_and_new_ones_are_refused(
    engines: ConnectedEngines, engine: EnginePeer, supervisor: SupervisorPeer
) -> None:
    submitting = asyncio.create_task(engines.current().submit(JOB))
    job_id = await engine.accept()
    stream = await submitting
    supervisor.change(phase=Phase.DRAINING)
    while engines.status.phase is not Phase.DRAINING:
        await engines.news()
    with pytest.raises(EngineUnavailable, match="shutting down"):
        engines.current()
    engine.write(job_id, "bye")
    engine.finish(job_id)
    assert texts(await rest_of(stream)) == "bye"


async def test_a_supervisor_that_has_gone_means_going_down(
    engines: ConnectedEngines, supervisor: SupervisorPeer
) -> None:
    supervisor.die()
    while engines.status.phase is not Phase.DRAINING:
        await engines.news()
    with pytest.raises(EngineUnavailable, match="shutting down"):
        engines.current()


async def test_a_supervisor_that_only_dropped_the_connection_is_followed_on(
    engines: ConnectedEngines, supervisor: SupervisorPeer
) -> None:
    supervisor.hang_up()
    supervisor.present = replace(supervisor.present, notice="still here")
    while engines.status.notice != "still here":
        await engines.news()
    assert engines.current().model == FAKE_MODEL


async def test_a_worker_that_starts_before_the_supervisor_listens_finds_it_later(
    tmp_path: Path,
) -> None:
    engines = connect_engines(tmp_path / "status.sock")
    await engines.settled(0)
    assert engines.status == ServiceStatus()
    async with SupervisorPeer(tmp_path / "status.sock") as supervisor:
        supervisor.announce(ServiceStatus(notice="hello"))
        await engines.settled(20)
        assert engines.status.notice == "hello"
        await engines.aclose()


async def test_a_request_waits_for_the_way_to_an_engine_that_is_there(
    supervisor: SupervisorPeer, tmp_path: Path
) -> None:
    late = EnginePeer(tmp_path / "engine-1.sock")
    supervisor.announce(serving(late.status(1)))
    engines = connect_engines(supervisor.socket)
    await engines.settled(0)
    while not engines.status.engines:
        await engines.news()
    waiting = asyncio.create_task(engines.bridged())
    with pytest.raises(EngineUnavailable):
        engines.current()
    async with late:
        await waiting
        assert engines.current().model == FAKE_MODEL
        await engines.aclose()


async def test_an_engine_of_another_version_is_not_used(
    supervisor: SupervisorPeer, engine: EnginePeer
) -> None:
    engine.protocol_version = 99
    supervisor.announce(serving(engine.status(1)))
    engines = connect_engines(supervisor.socket)
    await engine.left.wait()
    assert engines.status.current is None
    await engines.aclose()


async def test_while_a_switch_leaves_no_engine_requests_wait_for_the_next_one(
    engines: ConnectedEngines, supervisor: SupervisorPeer, engine: EnginePeer, second: EnginePeer
) -> None:
    await engines.bridged()  # nothing to wait for
    switch = SwitchStatus(1, "large", "fake", SwitchPhase.DRAINING)
    leaving = engine.status(1, EngineState.DRAINING)
    supervisor.announce(replace(serving(leaving, current=None), switch=switch))
    await until_current(engines, None)
    with pytest.raises(EngineUnavailable, match="switching models"):
        engines.current()
    waiting = asyncio.create_task(engines.bridged())
    loading = second.status(2, EngineState.LOADING)
    supervisor.announce(
        replace(serving(loading, current=None), switch=replace(switch, phase=SwitchPhase.LOADING))
    )
    await engines.news()
    assert not waiting.done()
    done = replace(switch, phase=SwitchPhase.DONE)
    supervisor.announce(replace(serving(second.status(2), current=2), switch=done))
    await waiting
    assert engines.status.current == 2
    supervisor.announce(
        replace(serving(second.status(2, EngineState.RESTARTING), current=None), switch=done)
    )
    await until_current(engines, None)
    await engines.bridged()  # a crash is another matter


async def test_a_switch_is_asked_for_and_refused_over_the_status_socket(tmp_path: Path) -> None:
    async with CommandPeer(tmp_path / "status.sock") as supervisor:
        supervisor.replies = [accepted_line(7), refused_line(Conflict("Not now."))]
        command = SwitchCommand("new", Path("/models/new.gguf"))
        assert await send_command(supervisor.socket, command) == 7
        with pytest.raises(Conflict, match="Not now"):
            await send_command(supervisor.socket, command)
        assert supervisor.heard == [command.to_line()] * 2
    with pytest.raises(EngineUnavailable, match="cannot be asked"):
        await send_command(supervisor.socket, command)


async def test_a_worker_that_begins_while_the_model_sleeps_knows_what_it_is(
    supervisor: SupervisorPeer, engines: ConnectedEngines, engine: EnginePeer
) -> None:
    assert engines.resting is None
    asleep = serving(engine.status(1, EngineState.ASLEEP), current=None)
    supervisor.announce(asleep)
    later = connect_engines(supervisor.socket)
    await later.settled(20)
    assert later.resting == FAKE_MODEL
    await later.aclose()
