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
    endless(client, 1, deadline_seconds=0.2)
    client.wait(1)
    assert client.dones[1].reason is FinishReason.DEADLINE
    assert 0 < client.dones[1].usage.completion_tokens < 900
    assert client.texts[1]


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
    client.submit(
        2,
        "1: count from 1 to 10.",
        sampling=ENDLESS,
        max_tokens=400,
        cache_key="batch",
        priority=Priority.BATCH,
    )
    while not client.texts.get(2):
        client.read(1)
    client.answer(3, "Say hello.", max_tokens=5)
    assert 2 not in client.dones
    client.wait(2)
    assert client.dones[2].usage.completion_tokens == 400
    assert client.texts[2] == client.texts[1]
