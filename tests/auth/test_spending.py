"""What answers may take, exactly: over every interleaving, in several workers, across restarts."""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.auth.spending import REPORT, Reservation, Spending, since
from service.domain.access import Limits, Principal, Standing
from service.domain.errors import Forbidden, InvalidRequest, RateLimited
from service.domain.events import Usage
from service.settings import Settings
from service.store.database import Database, open_database
from service.store.spending import LEASE_SECONDS, SqlSpending
from tests.fakes.clock import FakeClock

Step = tuple[float, int, int, float, str]


def who(**limits: object) -> Principal:
    return Principal("me", limits=Limits(**limits))  # type: ignore[arg-type]


def took(prompt: int, answer: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=answer)


@settings(max_examples=30, deadline=None)
@given(
    limits=st.fixed_dictionaries(
        {},
        optional={
            "tokens_per_minute": st.integers(20, 60),
            "tokens_per_day": st.integers(40, 150),
            "tokens_per_month": st.integers(60, 300),
            "streams": st.integers(1, 3),
        },
    ).filter(bool),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 7.0, 20.0, 59.5, 61.0, 7 * 3600.0, 9 * 86400.0]),
            st.integers(1, 20),
            st.integers(1, 20),
            st.floats(0, 1),
            st.sampled_from(["", "ends", "is lost"]),
        ),
        max_size=25,
    ),
)
def test_no_limit_is_ever_exceeded_and_nothing_is_refused_below_it(
    limits: dict[str, int], steps: list[Step]
) -> None:
    asyncio.run(check_interleaving(limits, steps))


@dataclass
class Ledger:
    """What should be: every limit, judged by adding up."""

    limits: dict[str, int]
    running: list[tuple[int, Reservation, int, int]] = field(default_factory=list)
    lost: list[tuple[float, int]] = field(default_factory=list)
    served: list[tuple[float, int]] = field(default_factory=list)

    def lose(self, now: float, tokens: int) -> None:
        """An answer's worker dies just after it said that it still runs."""
        self.lost.append((now + LEASE_SECONDS, tokens))

    def taken(self, now: float) -> dict[str, int]:
        """What counts now, an answer's tokens counting at its end, by the limit's name."""
        self.served += [each for each in self.lost if each[0] < now]
        self.lost = [each for each in self.lost if each[0] >= now]
        day, month = (datetime.fromtimestamp(now, UTC).strftime(f) for f in ("%Y-%m-%d", "%Y-%m"))
        set_aside = sum(prompt + most for _, _, prompt, most in self.running)
        set_aside += sum(tokens for _, tokens in self.lost)
        ended = [(datetime.fromtimestamp(at, UTC).isoformat(), n) for at, n in self.served]
        return {
            "tokens_per_minute": set_aside + sum(n for at, n in self.served if at > now - 60),
            "tokens_per_day": set_aside + sum(n for at, n in ended if at.startswith(day)),
            "tokens_per_month": set_aside + sum(n for at, n in ended if at.startswith(month)),
            "streams": len(self.running) + len(self.lost),
        }

    def fits(self, now: float, tokens: int) -> bool:
        taken = self.taken(now)
        added = {name: 1 if name == "streams" else tokens for name in taken}
        return all(taken[name] + added[name] <= most for name, most in self.limits.items())


async def check_interleaving(limits: dict[str, int], steps: list[Step]) -> None:
    """Answers of two workers, some of which run on while others come and go or are lost with their
    worker: let in exactly where all limits leave room, so whoever is alone can have all of each,
    and all that ended is counted once."""
    clock, ledger, me = FakeClock(1_800_000_000.0), Ledger(limits), who(**limits)
    with tempfile.TemporaryDirectory() as folder:
        workers = [await open_database(Settings(state_dir=Path(folder))) for _ in range(2)]
        spending = [Spending(SqlSpending(worker, clock)) for worker in workers]
        for number, (pause, prompt, answer, share, becomes) in enumerate(steps):
            clock.now += pause
            renewing = SqlSpending(workers[0], clock)
            await renewing.renew([r.key or 0 for _, r, _, _ in ledger.running])
            if becomes == "is lost" and ledger.running:
                _, _, asked, most = ledger.running.pop(0)
                ledger.lose(clock.now, asked + most)
            if becomes == "ends" and ledger.running:
                worker, reservation, asked, most = ledger.running.pop(0)
                usage = took(asked, int(most * share))
                await spending[worker].settle(me, reservation, "m", usage)
                ledger.served.append((clock.now, usage.total_tokens))
            worker, fits = number % 2, ledger.fits(clock.now, prompt + answer)
            try:
                reserved = await spending[worker].reserve(me, "m", prompt, answer, room=1000)
            except (RateLimited, InvalidRequest):
                assert not fits
            else:
                assert fits
                ledger.running.append((worker, reserved, prompt, answer))
            taken = ledger.taken(clock.now)
            assert all(taken[name] <= most for name, most in limits.items())
        spent = await spending[0].spent("me", "2000-01-01")
        counted = sum(each.prompt_tokens + each.completion_tokens for each in spent)
        assert counted == sum(tokens for _, tokens in ledger.served)
        assert sum(each.answers for each in spent) == len(ledger.served)
        for each in spending:
            await each.aclose()
        for each_worker in workers:
            await each_worker.aclose()


def test_workers_that_ask_at_the_same_time_get_all_of_the_day_and_no_more(tmp_path: Path) -> None:
    """Each in a thread of its own with a connection of its own, as fast as it can."""

    async def ask_often() -> int:
        worker = await open_database(Settings(state_dir=tmp_path))
        spending = Spending(SqlSpending(worker, FakeClock(1_800_000_000.0)))
        me, answers = who(tokens_per_day=600), 0
        for _ in range(30):
            with suppress(RateLimited):
                reserved = await spending.reserve(me, "m", 4, 6, room=100)
                await spending.settle(me, reserved, "m", took(4, 6))
                answers += 1
        await spending.aclose()
        await worker.aclose()
        return answers

    with ThreadPoolExecutor(4) as threads:
        answered = list(threads.map(lambda _: asyncio.run(ask_often()), range(4)))
    assert sum(answered) == 60


async def test_whoever_is_alone_can_have_all_of_it(database: Database, clock: FakeClock) -> None:
    spending = Spending(SqlSpending(database, clock))
    me = who(tokens_per_minute=100)
    first = await spending.reserve(me, "m", 30, None, room=4000)
    assert first.max_tokens == 70
    await spending.settle(me, first, "m", took(30, 20))
    second = await spending.reserve(me, "m", 10, 40, room=4000)
    assert second.max_tokens == 40
    with pytest.raises(RateLimited, match="100 tokens a minute") as refused:
        await spending.reserve(me, "m", 1, 1, room=4000)
    assert refused.value.retry_after_seconds == 60
    await spending.aclose()


async def test_the_time_to_come_back_is_when_enough_is_free(
    database: Database, clock: FakeClock
) -> None:
    spending = Spending(SqlSpending(database, clock))
    me = who(tokens_per_minute=100)
    for _ in range(2):
        reserved = await spending.reserve(me, "m", 40, 10, room=100)
        await spending.settle(me, reserved, "m", took(40, 10))
        clock.now += 10
    with pytest.raises(RateLimited) as refused:
        await spending.reserve(me, "m", 30, 10, room=100)
    seconds = refused.value.retry_after_seconds
    assert seconds == 40
    clock.now += seconds
    await spending.reserve(me, "m", 30, 10, room=100)
    await spending.aclose()


async def test_answers_at_once_are_limited_in_all_workers_together(
    database: Database, clock: FakeClock
) -> None:
    workers = [Spending(SqlSpending(database, clock)) for _ in range(2)]
    me = who(streams=2)
    held = [await worker.reserve(me, "m", 10, 10, room=100) for worker in workers]
    with pytest.raises(RateLimited, match="2 answers at once; are under way"):
        await workers[0].reserve(me, "m", 10, 10, room=100)
    await workers[1].settle(me, held[1], "m", took(10, 1))
    await workers[0].reserve(me, "m", 10, 10, room=100)
    for worker in workers:
        await worker.aclose()


async def left_alone(database: Database, clock: FakeClock, me: Principal) -> Spending:
    """A worker, when another one has died that was answering `me` with 10 and up to 50 tokens."""
    dead, alive = (Spending(SqlSpending(database, clock)) for _ in range(2))
    await dead.reserve(me, "m", 10, 50, room=100)
    await dead.aclose()
    return alive


async def test_what_a_dead_worker_held_is_free_after_its_lease(
    database: Database, clock: FakeClock
) -> None:
    me = who(streams=1)
    alive = await left_alone(database, clock, me)
    clock.now += LEASE_SECONDS - 1
    with pytest.raises(RateLimited):
        await alive.reserve(me, "m", 10, 10, room=100)
    clock.now += 2
    await alive.reserve(me, "m", 10, 10, room=100)
    await alive.aclose()


async def test_what_a_dead_worker_s_answer_had_set_aside_is_counted_once(
    database: Database, clock: FakeClock
) -> None:
    me = who(tokens_per_day=100)
    alive = await left_alone(database, clock, me)
    assert await alive.spent("me", "2000-01-01") == []
    clock.now += LEASE_SECONDS + 1
    with pytest.raises(RateLimited, match="40 of them are left"):
        await alive.reserve(me, "m", 10, 40, room=100)
    for _ in range(2):
        (counted,) = await alive.spent("me", "2000-01-01")
        assert (counted.model, counted.answers) == ("m", 1)
        assert (counted.prompt_tokens, counted.completion_tokens) == (10, 50)
    await alive.aclose()


@pytest.mark.parametrize("began", [True, False])
async def test_a_worker_that_was_given_up_for_dead_changes_nothing_that_was_counted(
    database: Database, clock: FakeClock, began: bool
) -> None:
    slow, other = (Spending(SqlSpending(database, clock)) for _ in range(2))
    me = who(tokens_per_day=100, streams=1)
    late = await slow.reserve(me, "m", 10, 20, room=100)
    clock.now += LEASE_SECONDS + 1
    await other.reserve(me, "m", 10, 10, room=100)
    clock.now += LEASE_SECONDS + 1  # its row is forgotten, and must not be another's by now
    last = await other.reserve(me, "m", 10, 10, room=100)
    assert last.key != late.key
    await SqlSpending(database, clock).renew([late.key or 0])
    await slow.settle(me, late, "m", took(10, 5) if began else Usage(), began=began)
    (counted,) = await other.spent("me", "2000-01-01")
    assert (counted.answers, counted.completion_tokens) == (2, 30)
    await slow.aclose()
    await other.aclose()


async def test_limits_say_when_there_will_be_more(database: Database, clock: FakeClock) -> None:
    clock.now = 1_800_000_000.0  # 2027-01-15 08:00 UTC
    spending = Spending(SqlSpending(database, clock))
    me = who(tokens_per_minute=100, tokens_per_day=200, tokens_per_month=300, streams=3)

    async def standings() -> dict[str, tuple[int, int, float]]:
        report: dict[str, Standing] = {}
        REPORT.set(report)
        running = await spending.reserve(me, "m", 5, 5, room=100)
        told = {name: (s.limit, s.left, s.more_in_seconds) for name, s in report.items()}
        await spending.settle(me, running, "m", Usage(), began=False)
        return told

    day, month = 16 * 3600.0, (16 + 16 * 24) * 3600.0
    first = await spending.reserve(me, "m", 10, 30, room=100)
    clock.now += 10
    told = await standings()
    assert told["tokens_per_minute"] == (100, 50, 60.0), "nobody knows when what runs will end"
    assert told["streams"] == (3, 1, 0.0)
    await spending.settle(me, first, "m", took(10, 20))
    clock.now += 20
    assert await standings() == {
        "tokens_per_minute": (100, 60, 40.0),
        "streams": (3, 2, 0.0),
        "tokens_per_day": (200, 160, day - 30),
        "tokens_per_month": (300, 260, month - 30),
    }
    await spending.aclose()


async def test_days_and_months_are_kept_by_the_rows_that_report(
    database: Database, clock: FakeClock
) -> None:
    clock.now = 1_800_000_000.0  # 2027-01-15 08:00 UTC
    spending = Spending(SqlSpending(database, clock))
    me = who(tokens_per_day=100, tokens_per_month=150)
    reserved = await spending.reserve(me, "m", 50, 40, room=100)
    await spending.settle(me, reserved, "m", took(50, 40))
    with pytest.raises(RateLimited, match="100 tokens a day") as today:
        await spending.reserve(me, "m", 10, 10, room=100)
    assert today.value.retry_after_seconds == 16 * 3600
    clock.now += 16 * 3600
    reserved = await spending.reserve(me, "m", 30, 20, room=100)
    await spending.settle(me, reserved, "m", took(30, 20))
    with pytest.raises(RateLimited, match="150 tokens a month") as this_month:
        await spending.reserve(me, "m", 10, 10, room=100)
    assert this_month.value.retry_after_seconds == 16 * 86400  # February
    found = await spending.spent("me", since(30, clock.now))
    assert [(s.day, s.answers, s.prompt_tokens, s.completion_tokens) for s in found] == [
        ("2027-01-16", 1, 30, 20),
        ("2027-01-15", 1, 50, 40),
    ]
    await spending.aclose()


async def test_what_can_never_be_is_refused_as_such(database: Database) -> None:
    spending = Spending(SqlSpending(database))
    with pytest.raises(InvalidRequest, match="may take 120 tokens; you have 100"):
        await spending.reserve(who(tokens_per_minute=100), "m", 20, 100, room=1000)
    with pytest.raises(InvalidRequest, match="has 20 tokens; this access token may send 10"):
        await spending.reserve(who(prompt_tokens=10), "m", 20, 1, room=1000)
    with pytest.raises(Forbidden, match="may use a, b, and c answers now"):
        spending.bound(who(models=("a", "b")), "c", 1)
    assert spending.bound(who(answer_tokens=10), "c", None) == 10
    assert spending.bound(who(answer_tokens=10), "c", 5) == 5


async def test_what_never_began_takes_nothing(database: Database) -> None:
    spending = Spending(SqlSpending(database))
    me = who(tokens_per_minute=20, streams=1)
    for _ in range(3):
        reserved = await spending.reserve(me, "m", 10, 10, room=100)
        await spending.settle(me, reserved, "m", Usage(), began=False)
    assert await spending.spent("me", "2000-01-01") == []
    await spending.aclose()


async def test_the_middleware_hears_what_is_left(database: Database) -> None:
    report: dict[str, Standing] = {}
    REPORT.set(report)
    spending = Spending(SqlSpending(database))
    await spending.reserve(who(tokens_per_minute=100, streams=3), "m", 10, 20, room=100)
    left = {name: (standing.limit, standing.left) for name, standing in report.items()}
    assert left == {"tokens_per_minute": (100, 70), "streams": (3, 2)}
    await spending.aclose()
