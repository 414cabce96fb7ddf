"""Requests per minute, exactly."""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import metrics
from service.auth.limits import RequestLimits
from service.domain.errors import RateLimited
from service.settings import Settings
from service.store.admissions import SqlAdmissions
from service.store.database import Database, open_database
from tests.fakes.clock import FakeClock


@settings(max_examples=15)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from([0, 0.5, 7, 20, 59.5, 61]), st.booleans()), max_size=30),
)
def test_no_minute_has_more_than_the_limit_and_nothing_is_refused_below_it(
    limit: int, requests: list[tuple[float, bool]]
) -> None:
    asyncio.run(check_interleaving(limit, requests))


async def check_interleaving(limit: int, requests: list[tuple[float, bool]]) -> None:
    """Requests after pauses, to one of two workers: admitted exactly where there is room."""
    clock = FakeClock(1_800_000_000.0)
    with tempfile.TemporaryDirectory() as folder:
        workers = [await open_database(Settings(state_dir=Path(folder))) for _ in range(2)]
        limits = [RequestLimits(SqlAdmissions(worker, clock)) for worker in workers]
        admitted: list[float] = []
        for pause, second in requests:
            clock.now += pause
            recent = [at for at in admitted if at > clock.now - 60]
            allowance = await limits[second].spend("me", limit)
            assert allowance.admitted is (len(recent) < limit)
            if allowance.admitted:
                admitted.append(clock.now)
            else:
                assert allowance.next_seconds == recent[0] + 60 - clock.now
        for worker in workers:
            await worker.aclose()


async def test_requests_that_come_at_once_are_counted_one_by_one(
    database: Database, clock: FakeClock
) -> None:
    limits = RequestLimits(SqlAdmissions(database, clock))
    found = await asyncio.gather(*(limits.spend("me", 5) for _ in range(20)))
    assert sum(each.admitted for each in found) == 5


def test_workers_that_ask_at_the_same_time_get_all_of_the_limit_and_no_more(
    tmp_path: Path,
) -> None:
    """Each in a thread of its own with a connection of its own, as fast as it can."""

    async def ask_often() -> int:
        worker = await open_database(Settings(state_dir=tmp_path))
        limits = RequestLimits(SqlAdmissions(worker, FakeClock()))
        found = [(await limits.spend("me", 100)).admitted for _ in range(60)]
        await worker.aclose()
        return sum(found)

    with ThreadPoolExecutor(4) as threads:
        admitted = list(threads.map(lambda _: asyncio.run(ask_often()), range(4)))
    assert sum(admitted) == 100


async def test_one_principal_s_requests_are_not_another_s(
    database: Database, clock: FakeClock
) -> None:
    limits = RequestLimits(SqlAdmissions(database, clock))
    (await limits.spend("me", 1)).demand()
    (await limits.spend("you", 1)).demand()
    counter = metrics.RATE_LIMITED.labels("requests_per_minute")
    before = counter._value.get()
    with pytest.raises(RateLimited, match="1 requests a minute"):
        (await limits.spend("me", 1)).demand()
    assert counter._value.get() == before + 1


async def test_a_clock_that_is_set_back_locks_nobody_out(
    database: Database, clock: FakeClock
) -> None:
    limits = RequestLimits(SqlAdmissions(database, clock))
    (await limits.spend("me", 1)).demand()
    clock.now -= 3600
    (await limits.spend("me", 1)).demand()
