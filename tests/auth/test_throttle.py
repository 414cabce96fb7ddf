"""Wrong access tokens, one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.auth.throttle import BURST, MAX_ADDRESSES, SECONDS_EACH, FailureThrottle, network_of
from service.settings import Settings
from service.store.database import Database, open_database
from service.store.failures import SqlFailures
from tests.fakes.clock import FakeClock


@pytest.fixture
def throttle(database: Database, clock: FakeClock) -> FailureThrottle:
    return FailureThrottle(SqlFailures(database, clock), clock)


async def test_after_a_burst_failures_are_let_through_at_their_pace(
    throttle: FailureThrottle, clock: FakeClock
) -> None:
    assert [await throttle.fail("192.0.2.1") for _ in range(BURST)] == [0] * BURST
    assert await throttle.fail("192.0.2.1") == SECONDS_EACH
    clock.now += SECONDS_EACH
    assert await throttle.fail("192.0.2.1") == 0
    assert await throttle.fail("192.0.2.1") == SECONDS_EACH
    clock.now += SECONDS_EACH * (BURST + 1)
    assert [await throttle.fail("192.0.2.1") for _ in range(BURST)] == [0] * BURST


async def test_trying_on_does_not_make_the_wait_longer(throttle: FailureThrottle) -> None:
    waits = [await throttle.fail("192.0.2.1") for _ in range(100)]
    assert max(waits) == SECONDS_EACH


async def test_another_address_is_not_held_liable(throttle: FailureThrottle) -> None:
    for _ in range(BURST + 1):
        await throttle.fail("192.0.2.1")
    assert await throttle.fail("192.0.2.2") == 0


async def test_all_workers_count_together_and_a_restart_forgets_nothing(
    tmp_path: Path, clock: FakeClock
) -> None:
    workers = [await open_database(Settings(state_dir=tmp_path)) for _ in range(3)]
    throttles = [FailureThrottle(SqlFailures(worker, clock), clock) for worker in workers]
    tried = [throttles[number % 3].fail("192.0.2.1") for number in range(3 * BURST)]
    waits = await asyncio.gather(*tried)
    assert sorted(waits) == [0] * BURST + [SECONDS_EACH] * 2 * BURST
    for worker in workers:
        await worker.aclose()
    restarted = await open_database(Settings(state_dir=tmp_path))
    again = FailureThrottle(SqlFailures(restarted, clock), clock)
    assert await again.fail("192.0.2.1") == SECONDS_EACH
    await restarted.aclose()


async def test_a_clock_that_is_set_back_holds_nobody_liable_for_longer(
    throttle: FailureThrottle, database: Database, clock: FakeClock
) -> None:
    for _ in range(BURST):
        await throttle.fail("192.0.2.1")
    clock.now -= 3600
    fresh = FailureThrottle(SqlFailures(database, clock), clock)
    assert await fresh.fail("192.0.2.1") == 0


async def test_whoever_goes_on_does_not_make_the_store_work(
    throttle: FailureThrottle, database: Database
) -> None:
    for _ in range(BURST + 1):
        await throttle.fail("192.0.2.1")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE failures")
    assert await throttle.fail("192.0.2.1") == SECONDS_EACH
    assert await throttle.fail("192.0.2.2") == 0  # a store that can't count lets nobody in either


def test_an_ipv6_network_is_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")
    assert network_of("unix") == "unix"


class _Refusing:
    """A store in which every address has failed too often."""

    async def fail(self, network: str, seconds_each: float, burst: int) -> float:
        return seconds_each


async def test_many_addresses_do_not_fill_memory(clock: FakeClock) -> None:
    throttle = FailureThrottle(_Refusing(), clock)
    for number in range(MAX_ADDRESSES + 5):
        await throttle.fail(str(number))
    assert len(throttle._refused_until) == MAX_ADDRESSES


async def test_what_is_paid_for_is_not_kept(
    throttle: FailureThrottle, database: Database, clock: FakeClock
) -> None:
    for number in range(20):
        await throttle.fail(f"192.0.2.{number}")
    clock.now += SECONDS_EACH + 1
    await throttle.fail("198.51.100.1")
    with database.engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM failures").scalar_one()
    assert rows == 1
