"""Every route of the OpenAPI document is asked for what it says, and for what it doesn't."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.api.access import is_open_to_all
from service.domain.access import Scope
from tests.e2e.parley import Parley, create_token, running_parley

pytestmark = [pytest.mark.services, pytest.mark.model]

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SMALL = {  # the answers are not to be what takes the time
    "PARLEY_CHAT__MAX_TOKENS": "4",
    "PARLEY_ENGINE__CONTEXT_LENGTH": "512",
    "PARLEY_MODEL__OFFLINE": "true",
    "PARLEY_PICTURES__DOMAINS": "",
    "PARLEY_LOG__LEVEL": "debug",  # health checks are logged, too
}
SCOPES = [word for scope in Scope for word in ("--scope", scope.value)]


@dataclass(frozen=True)
class Fuzzed:
    """What was found: schemathesis's own words, and each answer by its route's template."""

    found: str
    answers: list[tuple[str, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def secret(folder: Path) -> str:
    """An access token that opens everything."""
    return create_token(folder, "all", *SCOPES)


@pytest.fixture(scope="module")
def parley(folder: Path, secret: str) -> Iterator[Parley]:
    assert secret
    arguments = ("--model", "pocket", "--workers", "2", "--host", "0.0.0.0")  # noqa: S104
    with running_parley(folder, *arguments, environment=SMALL) as service:
        service.wait_healthy()
        yield service


@pytest.fixture(scope="module")
def document(parley: Parley, folder: Path, secret: str) -> Path:
    reply = httpx.get(
        f"{parley.url}/openapi.json", headers={"Authorization": f"Bearer {secret}"}, timeout=30
    )
    path = folder / "openapi.json"
    path.write_bytes(reply.content)
    return path


def fuzz(parley: Parley, document: Path, seconds: int, *arguments: str) -> Fuzzed:
    """Ask for every operation within `seconds`. Answers are those that the service has logged,
    so what the fuzzer does not report is seen as well."""
    num_lines = len(parley.lines())
    done = subprocess.run(
        [
            *(SCHEMATHESIS, "run", document, "--url", parley.url, "--no-color"),
            *("--checks", "not_a_server_error", "--max-time", str(seconds), "--warnings", "off"),
            *("--request-timeout", "60", "--continue-on-failure"),
            *("--suppress-health-check", "all", *arguments),
        ],
        cwd=document.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * seconds + 120,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    logged = parley.lines()[num_lines:]
    lines = [json.loads(line) for line in logged if '"request_finished"' in line]
    bugs = [line for line in logged if '"request_failed"' in line]
    return Fuzzed(
        "\n".join([done.stdout[-6000:], *bugs]) if done.returncode or bugs else "",
        [
            (line["route"].replace(":path}", "}"), line["status"])
            for line in lines
            if "route" in line
        ],
    )


def templates(document: Path) -> set[str]:
    return set(json.loads(document.read_text())["paths"])


def check_with_a_token(
    parley: Parley, document: Path, secret: str, *run: str, seconds: int, is_all_reached: bool
) -> None:
    fuzzed = fuzz(parley, document, seconds, "-H", f"Authorization: Bearer {secret}", *run)
    assert fuzzed.found == ""
    assert [answer for answer in fuzzed.answers if answer[1] >= 500] == []
    reached = {route for route, _ in fuzzed.answers}
    if not reached and seconds < 60:  # a slow machine asks nothing in so short a time
        check_with_a_token(
            parley, document, secret, *run, seconds=2 * seconds, is_all_reached=is_all_reached
        )
        return
    assert reached
    assert not is_all_reached or templates(document) - reached == set()


def check_without_one(parley: Parley, document: Path, *run: str, seconds: int) -> None:
    fuzzed = fuzz(parley, document, seconds, *run)
    assert fuzzed.found == ""
    closed = {route for route in templates(document) if not is_open_to_all(route)}
    closed.remove("/metrics")  # open to programs on this machine, which the fuzzer is
    let_in = [each for each in fuzzed.answers if each[0] in closed and each[1] < 400]
    assert let_in == []
    refused = [status for _, status in fuzzed.answers if status == 401]
    if not refused and seconds < 60:  # a slow machine asks for little in so short a time
        check_without_one(parley, document, *run, seconds=2 * seconds)
        return
    assert refused


def test_nothing_that_is_asked_for_breaks_the_service(
    parley: Parley, document: Path, secret: str
) -> None:
    run = ("--phases", "examples,fuzzing", "--max-examples", "2", "--workers", "2")
    # How much of it comes to pass in so short a time is the machine's to say.
    check_with_a_token(parley, document, secret, *run, seconds=10, is_all_reached=False)


def test_nothing_is_to_be_had_without_a_token(parley: Parley, document: Path) -> None:
    run = ("--phases", "examples,fuzzing", "--max-examples", "1", "--workers", "2")
    check_without_one(parley, document, *run, seconds=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_that_is_asked_for_for_minutes_breaks_the_service(
    parley: Parley, document: Path, secret: str
) -> None:
    check_with_a_token(
        parley, document, secret, "--max-examples", "30", seconds=300, is_all_reached=True
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_to_be_had_in_minutes_without_a_token(parley: Parley, document: Path) -> None:
    check_without_one(parley, document, "--phases", "examples,coverage,fuzzing", seconds=120)
