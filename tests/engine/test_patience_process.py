"""Deadlines, places in the queue and batch work, in a real engine with one slot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.domain.chat import Priority
from service.domain.events import FinishReason
from service.domain.sampling import Sampling
from service.ipc.messages import Queued, Refused
from tests.engine.process import Client, Engine, running_engine

pytestmark = pytest.mark.model

ENDLESS = Sampling(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    directory = tmp_path_factory.mktemp("engine")
    with running_engine(directory, PARLEY_ENGINE__SLOTS="1") as process:
        process.next_event("ready")
        yield process


def endless(client: Client, *request_ids: int, **options: object) -> None:
    for number in request_ids:
        facts = {"sampling": ENDLESS, "max_tokens": 900, **options}
        client.submit(number, f"{number}: count from 1 to 10.", **facts)


def test_an_answer_ends_when_its_time_is_over_with_what_there_is(engine: Engine) -> None:
    client = engine.connect()
    for number in range(1, 9):  # where the machine is so slow that there is nothing yet, later
        endless(client, number, deadline_seconds=0.1 * 2**number)
        if isinstance(client.reply(number), Refused):
            continue
        client.wait(number)
        if client.texts.get(number):
            break
    assert client.dones[number].reason is FinishReason.DEADLINE
    assert 0 < client.dones[number].usage.completion_tokens < 900
    assert client.texts[number]


def test_a_first_token_that_can_not_come_in_time_is_refused(engine: Engine) -> None:
    client = engine.connect()
    endless(client, 1, first_token_seconds=1e-6)
    refused = client.reply(1)
    assert isinstance(refused, Refused)
    assert refused.code == "deadline_missed"
    assert refused.retry_after_seconds is not None


def test_who_waits_is_told_how_many_go_first(engine: Engine) -> None:
    client = engine.connect()
    numbers = range(1, 9)
    endless(client, *numbers, max_tokens=400)
    client.wait(*numbers)
    told = [f for f in client.frames if isinstance(f, Queued) and f.id == 8]
    assert told
    assert all(f.eta_seconds >= 0 for f in told)
    places = [f.num_ahead for f in told]
    assert places == sorted(places, reverse=True)
    assert places[0] > 0


def test_batch_work_yields_its_slot_and_goes_on_with_the_same_text(engine: Engine) -> None:
    client = engine.connect()
    endless(client, 1, cache_key="alone", max_tokens=400)
    client.wait(1)
    for number in range(2, 22, 2):
        client.submit(
            number,
            "1: count from 1 to 10.",
            sampling=ENDLESS,
            max_tokens=400,
            cache_key="batch",
            priority=Priority.BATCH,
        )
        client.wait_begun(number)
        client.answer(number + 1, "Say hello.", max_tokens=5)
        if number not in client.dones:
            break  # else we were too slow, and it had ended before anybody was in a hurry
    assert number not in client.dones
    client.wait(number)
    assert client.dones[number].usage.completion_tokens == 400
    assert client.texts[number] == client.texts[1]
