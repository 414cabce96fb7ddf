"""Who is told from whom by where they are, and who may say so for others."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.parley import Parley, running_parley

pytestmark = [pytest.mark.services, pytest.mark.model]

LIMIT = 3


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """No token is needed, and each address may ask so often in a minute."""
    environment = {"PARLEY_AUTH__ANONYMOUS_REQUESTS_PER_MINUTE": str(LIMIT)}
    folder = tmp_path_factory.mktemp("addresses")
    with running_parley(folder, "--model", "pocket", environment=environment) as service:
        service.wait_healthy()
        yield service


def statuses(parley: Parley, caller: str, claims: list[str]) -> list[int]:
    """What is said to somebody at `caller` who claims to ask for others."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=caller), timeout=60) as client:
        return [
            client.post(
                f"{parley.url}/tokenize",
                json={"content": "Hello"},
                headers={"X-Forwarded-For": claim},
            ).status_code
            for claim in claims
        ]


def test_a_trusted_proxy_says_who_asks(parley: Parley) -> None:
    asked = statuses(parley, "127.0.0.1", ["203.0.113.1"] * LIMIT)
    assert asked == [200] * LIMIT
    assert statuses(parley, "127.0.0.1", ["203.0.113.1", "203.0.113.2"]) == [429, 200]


def test_nobody_else_does(parley: Parley) -> None:
    claims = [f"198.51.100.{number}" for number in range(LIMIT + 1)]
    assert statuses(parley, "127.0.0.2", claims) == [200] * LIMIT + [429]
