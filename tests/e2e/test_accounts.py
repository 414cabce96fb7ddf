"""What answers took is counted, also when nobody is left who could say so."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from service.store.database import open_database
from service.store.spending import LEASE_SECONDS, SqlSpending
from tests.e2e.parley import Parley, chat_body, create_token, running_parley
from tests.e2e.processes import workers_of
from tests.faults.streams import ENDS
from tests.supervisor.service import processes_of
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

MOST = 1500  # tokens of the answer that is cut; many seconds of Pocket's time
LIMITS = ("--streams", "1", "--tokens-per-day", "100000", "--tokens-per-month", "100000")


def headers(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def ask(service: Parley, secret: str) -> httpx.Response:
    body = chat_body("What is the capital of France?", max_tokens=8)
    url = f"{service.url}/v1/chat/completions"
    return service.client.post(url, json=body, headers=headers(secret))


def usage(service: Parley, secret: str) -> list[dict[str, Any]]:
    reply = service.client.get(f"{service.url}/v1/me/usage", headers=headers(secret))
    rows: list[dict[str, Any]] = reply.json()["data"]
    return rows


def totals(rows: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Answers, and tokens of prompts and of answers; midnight may pass at any time."""
    names = ("answers", "prompt_tokens", "completion_tokens")
    answers, prompt, completion = (sum(row[name] for row in rows) for name in names)
    return answers, prompt, completion


def cut(service: Parley, secret: str, kill: Callable[[], None]) -> None:
    """Begin a long answer, and kill who writes it at its first words."""
    body = chat_body("Tell me a story.", stream=True, max_tokens=MOST, logit_bias=ENDS)
    url = f"{service.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers(secret), timeout=60) as reply:
        assert reply.status_code == 200, reply.read()
        lines = iter(reply.iter_lines())
        next(line for line in lines if '"content":"' in line)
        kill()
        with pytest.raises(httpx.TransportError):
            list(lines)


def kill_workers(service: Parley) -> None:
    for worker in workers_of(service):
        os.kill(worker, signal.SIGKILL)


async def spent_after_a_lease(state_dir: Path) -> None:
    """Have somebody ask for what was spent when the leases of the dead have passed."""
    database = await open_database(Settings(state_dir=state_dir))
    later = SqlSpending(database, lambda: time.time() + LEASE_SECONDS + 1)
    await later.spent(None, "2000-01-01")
    await database.aclose()


def test_what_a_killed_worker_s_answer_had_set_aside_is_counted_once(tmp_path: Path) -> None:
    secret = create_token(tmp_path, "laptop", *LIMITS)
    with running_parley(tmp_path, "--model", "pocket", "--workers", "2") as service:
        service.wait_healthy()
        cut(service, secret, lambda: kill_workers(service))
        service.wait_healthy()
        assert totals(usage(service, secret)) == (0, 0, 0)
        assert ask(service, secret).status_code == 429  # as far as anybody knows it still runs
        asyncio.run(spent_after_a_lease(tmp_path / "state"))
        answers, prompt, completion = totals(usage(service, secret))
        assert (answers, completion) == (1, MOST)
        assert prompt > 0
        asyncio.run(spent_after_a_lease(tmp_path / "state"))
        assert totals(usage(service, secret)) == (1, prompt, MOST)
        assert ask(service, secret).status_code == 200
        # The next one is counted when its worker has seen its end, which is after its reader has.
        after = until(lambda: totals(usage(service, secret)), lambda found: found[0] > 1)
        assert after[0] == 2


def test_what_a_killed_service_s_answer_had_set_aside_is_counted_at_its_next_start(
    tmp_path: Path,
) -> None:
    secret = create_token(tmp_path, "laptop", *LIMITS)
    with running_parley(tmp_path, "--model", "pocket") as service:
        service.wait_healthy()
        everything = [service.process.pid, *processes_of(service.process.pid)]

        def kill() -> None:
            for pid in reversed(everything):  # those above notice what befalls those below
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        cut(service, secret, kill)
        service.process.wait(60)
    with running_parley(tmp_path, "--model", "pocket") as service:
        service.wait_healthy()
        answers, _, completion = totals(usage(service, secret))
        assert (answers, completion) == (1, MOST)
        assert ask(service, secret).status_code == 200
