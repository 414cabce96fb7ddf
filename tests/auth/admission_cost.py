"""What one admission costs: `python -m tests.auth.admission_cost [WORKERS [PER_SECOND]]`.

Each worker is a process of its own on one sqlite file, and admits as a service does: a request is
counted (`count`), tokens are set aside for its answer (`reserve`), and settled (`settle`). Requests
come at random moments, `PER_SECOND` of them a second to each worker, whether or not those before
them have been answered; where it is 0, each comes as soon as the one before it is settled. Printed
in milliseconds, from asking to having the answer, threads and event loop included.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from service.auth.limits import RequestLimits
from service.auth.spending import Spending
from service.domain.access import Limits, Principal
from service.domain.events import Usage
from service.settings import Settings
from service.store.admissions import SqlAdmissions
from service.store.database import open_database
from service.store.spending import SqlSpending

NUM_PRINCIPALS = 20
NUM_WARM = 50
SECONDS = 20.0
LIMITS = Limits(
    tokens_per_minute=10**9, tokens_per_day=10**9, tokens_per_month=10**9, streams=10**6
)
T = TypeVar("T")
STEPS = ("count", "reserve", "settle")


async def admit(state_dir: Path, per_second: float, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each admission of one worker, by step."""
    database = await open_database(Settings(state_dir=state_dir))
    limits, spending = RequestLimits(SqlAdmissions(database)), Spending(SqlSpending(database))
    principals = [Principal(f"p{n}", limits=LIMITS) for n in range(NUM_PRINCIPALS)]
    took: dict[str, list[float]] = {step: [] for step in STEPS}

    async def timed(step: str, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        result = await work
        took[step].append(1000 * (time.perf_counter() - began))
        return result

    async def ask() -> None:
        me = random.choice(principals)
        await timed("count", limits.spend(me.id, 10**6))
        reserved = await timed("reserve", spending.reserve(me, "m", 40, 60, room=4000))
        usage = Usage(prompt_tokens=40, completion_tokens=20)
        await timed("settle", spending.settle(me, reserved, "m", usage))

    due = time.monotonic()
    ends = due + seconds
    async with asyncio.TaskGroup() as asked:
        while due < ends:
            await asyncio.sleep(due - time.monotonic())
            if per_second:
                asked.create_task(ask())
                due += random.expovariate(per_second)
            else:
                await ask()
                due = time.monotonic()
    await spending.aclose()
    await database.aclose()
    return {step: each[NUM_WARM:] for step, each in took.items()}


def measure(workers: int, per_second: float, seconds: float = SECONDS) -> dict[str, list[float]]:
    """Sorted milliseconds by step, of all workers together."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.auth.admission_cost"]
        arguments = ["--worker", folder, str(per_second), str(seconds)]
        running = [
            subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
            for _ in range(workers)
        ]
        found = [json.loads(each.communicate(timeout=seconds + 60)[0]) for each in running]
    return {step: sorted(ms for one in found for ms in one[step]) for step in STEPS}


def percentile(of: list[float], share: float) -> float:
    return of[min(len(of) - 1, int(share * len(of)))]


def report(workers: int, per_second: float, found: dict[str, list[float]]) -> str:
    lines = [f"{workers} workers, {per_second:g} requests a second each; milliseconds:"]
    for step, ms in found.items():
        shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        figures = "  ".join(f"{name} {percentile(ms, share):.2f}" for name, share in shares.items())
        lines.append(f"  {step:8} {figures}  most {ms[-1]:.2f}  (of {len(ms)})")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--worker"]:
        took = asyncio.run(admit(Path(arguments[1]), float(arguments[2]), float(arguments[3])))
        sys.stdout.write(json.dumps(took))
        return
    workers = int(arguments[0]) if arguments else 4
    per_second = float(arguments[1]) if arguments[1:] else 25.0
    sys.stdout.write(report(workers, per_second, measure(workers, per_second)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
