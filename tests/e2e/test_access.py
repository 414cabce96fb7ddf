"""Access to a running service: several workers, the real command line, the real log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.parley import PARLEY, Parley, chat_body, running_parley

pytestmark = [pytest.mark.services, pytest.mark.model]

# More requests than workers, each on a connection of its own: every worker gets some.
NUM_TRIES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parley")


@pytest.fixture(scope="module")
def parley(folder: Path) -> Iterator[Parley]:
    arguments = ("--model", "pocket", "--workers", "3", "--host", "0.0.0.0")  # noqa: S104
    token(folder, "create", "--name", "first")
    with running_parley(folder, *arguments) as service:
        service.wait_healthy()
        yield service


def token(folder: Path, *arguments: str) -> str:
    """What `parley token …` prints, beside a running service or before one."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    return subprocess.run(
        [PARLEY, "token", *arguments],
        env=variables | {"PARLEY_STATE_DIR": str(folder / "state")},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def statuses(parley: Parley, secret: str) -> set[int]:
    headers = {"Authorization": f"Bearer {secret}"}
    return {
        httpx.get(f"{parley.url}/v1/models", headers=headers, timeout=60).status_code
        for _ in range(NUM_TRIES)
    }


def test_a_token_holds_in_every_worker_from_its_making_to_its_end(
    parley: Parley, folder: Path
) -> None:
    assert parley.get("/sessions").status_code == 401
    secret = token(folder, "create", "--name", "laptop")
    assert statuses(parley, secret) == {200}
    reply = httpx.post(
        f"{parley.url}/v1/chat/completions",
        json=chat_body("What is the capital of France?"),
        headers={"x-api-key": secret},
        timeout=60,
    )
    assert "Paris" in reply.text
    rotated = token(folder, "rotate", "laptop")
    assert statuses(parley, secret) <= {401, 429}
    assert statuses(parley, rotated) == {200}
    token(folder, "revoke", "laptop")
    assert statuses(parley, rotated) <= {401, 429}
    log = parley.log.read_text()
    assert "access_refused" in log
    assert "access_is_open" not in log
    assert secret[13:] not in log
    assert rotated[13:] not in log


def test_what_one_tenant_s_prompt_left_in_the_cache_is_not_another_s(
    parley: Parley, folder: Path
) -> None:
    mine, yours = (token(folder, "create", "--name", name) for name in ("mine", "yours"))
    prompt = "What is the capital of France? " + "Please think of the rivers. " * 30
    found = [cached_tokens(parley, secret, prompt) for secret in (mine, mine, yours, yours)]
    assert found[1] > found[0]
    assert found[3] == found[1]
    assert found[2] <= found[0]


def cached_tokens(parley: Parley, secret: str, prompt: str) -> int:
    reply = httpx.post(
        f"{parley.url}/v1/chat/completions",
        json=chat_body(prompt, max_tokens=4),
        headers={"Authorization": f"Bearer {secret}"},
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
    cached: int = reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached


def test_a_limit_holds_in_all_workers_together_and_all_of_it_can_be_had(
    parley: Parley, folder: Path
) -> None:
    secret = token(folder, "create", "--name", "limited", "--requests-per-minute", "20")

    def ask(_number: int) -> int:
        return httpx.post(
            f"{parley.url}/tokenize",
            json={"content": "Hello"},
            headers={"Authorization": f"Bearer {secret}"},
            timeout=60,
        ).status_code

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(ask, range(60)))
    assert (found.count(200), found.count(429)) == (20, 40)
