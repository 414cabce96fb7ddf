"""What somebody wrote, was answered, or proved themselves with is kept nowhere it need not be."""

from __future__ import annotations

import os
import resource
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.parley import Parley, create_token, running_parley
from tests.e2e.processes import engine_of
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

SCOPES = ("chat", "embed", "models:switch", "metrics", "admin")


@dataclass
class Canaries:
    """Words that occur nowhere else. `told` is all that was answered beside the answers."""

    prompt: str = field(default_factory=lambda: f"zugvogel{secrets.token_hex(6)}")
    answer: str = field(default_factory=lambda: f"kolibri{secrets.token_hex(6)}")
    secret: str = ""
    told: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[bytes]:
        return [each.encode() for each in (self.prompt, self.answer, self.secret[13:])]

    def in_(self, data: bytes) -> list[bytes]:
        return [word for word in self.words if word in data]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary")


@pytest.fixture(scope="module")
def canaries(folder: Path) -> Canaries:
    return Canaries(secret=create_token(folder, "laptop", *(f"--scope={s}" for s in SCOPES)))


@pytest.fixture(scope="module")
def parley(folder: Path, canaries: Canaries) -> Iterator[Parley]:
    """A service that may leave core files, logs all it has to say, and parks conversations."""
    assert canaries.secret
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    arguments = ("--model", "pocket", "--workers", "2", "--host", "0.0.0.0")  # noqa: S104
    environment = {
        "PARLEY_LOG__LEVEL": "debug",
        "PARLEY_RUNTIME_DIR": str(folder / "run"),
        "PARLEY_ENGINE__SLOTS": "1",
        "PARLEY_ENGINE__CONTEXT_LENGTH": "1024",
    }
    before = Path.cwd()
    os.chdir(folder)  # where a core file would be written
    try:
        with running_parley(folder, *arguments, environment=environment) as service:
            service.wait_healthy()
            yield service
    finally:
        os.chdir(before)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture(scope="module")
def client(parley: Parley, canaries: Canaries) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {canaries.secret}"}
    with httpx.Client(base_url=parley.url, headers=headers, timeout=60) as made:
        yield made


def talk(client: httpx.Client, canaries: Canaries) -> None:
    """Say the canary in every dialect, and have it answered where that can be demanded."""
    said = [{"role": "user", "content": f"Say {canaries.prompt}."}]
    held = {"guided_choice": [canaries.answer], "max_tokens": 60}
    reply = client.post("/v1/chat/completions", json={"messages": said, **held})
    assert reply.json()["choices"][0]["message"]["content"] == canaries.answer, reply.text
    stream = {"messages": said, "stream": True, **held}
    assert "[DONE]" in client.post("/v1/chat/completions", json=stream).text
    for path, body in (
        ("/v1/completions", {"prompt": canaries.prompt, "max_tokens": 4}),
        ("/v1/messages", {"model": "pocket", "messages": said, "max_tokens": 4}),
        ("/v1/responses", {"input": canaries.prompt, "store": False, "max_output_tokens": 16}),
        ("/v1/messages/count_tokens", {"model": "pocket", "messages": said}),
        ("/tokenize", {"content": canaries.prompt}),
        ("/apply-template", {"messages": said}),
    ):
        reply = client.post(path, json=body)
        assert reply.status_code == 200, (path, reply.text)


def be_refused(client: httpx.Client, canaries: Canaries) -> None:
    """Say it where it can't be answered; what is told then is kept in `told`."""
    word = canaries.prompt
    said = [{"role": "user", "content": word}]
    long = [{"role": "user", "content": f"{word} " * 600}]
    for path in (
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/chat",
        "/v1/completions",
    ):
        for body in (
            {"messages": long, "input": long, "message": f"{word} " * 600, "max_tokens": 4},
            {"messages": {"content": word}, "input": {"content": word}, "message": [word]},
            {"messages": said, "max_tokens": -1, "temperature": 99, "message": word, "input": word},
            {"messages": word, "input": 5, "message": 5, "prompt": 5, "system": word},
            {"messages": [{"content": word}], "input": [{"content": word}], "max_tokens": 4},
        ):
            reply = client.post(path, json={"model": "pocket", **body})
            if reply.status_code >= 400:
                canaries.told.append(reply.text)
        reply = client.post(path, content=f'{{"messages": "{word}'.encode())
        assert reply.status_code in (400, 422)
        canaries.told.append(reply.text)
    for wrong in (canaries.secret[:-1], canaries.secret + "x"):
        reply = httpx.get(f"{client.base_url}/v1/models", headers={"x-api-key": wrong}, timeout=60)
        assert reply.status_code == 401
        canaries.told.append(reply.text)
    for path in (f"/v1/models/{canaries.secret}", f"/{canaries.secret}", f"/x?{word}"):
        client.get(path)


def crash_while_answering(parley: Parley, client: httpx.Client, canaries: Canaries) -> None:
    """Abort the engine, which holds the prompt, in the middle of an answer."""
    pid = engine_of(parley)
    said = {"messages": [{"role": "user", "content": canaries.prompt}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=said) as reply:
        lines = reply.iter_lines()
        next(lines)
        os.kill(pid, signal.SIGABRT)
        canaries.told += [line for line in lines if '"error"' in line]
    until(lambda: '"engine_crashed"' in parley.log.read_text())
    parley.wait_healthy()


@pytest.fixture(scope="module")
def left_behind(parley: Parley, client: httpx.Client, canaries: Canaries, folder: Path) -> Path:
    """The folder in which everything lies that the service keeps, after all has been said."""
    talk(client, canaries)
    be_refused(client, canaries)
    crash_while_answering(parley, client, canaries)
    talk(client, canaries)
    canaries.told.append(client.get("/metrics").text)
    canaries.told.append(client.get("/health").text)
    return folder


def test_it_is_not_in_errors_metrics_or_health(left_behind: Path, canaries: Canaries) -> None:
    assert len(canaries.told) > 20
    assert [text for text in canaries.told if canaries.in_(text.encode())] == []


def test_it_is_not_in_the_log(left_behind: Path, parley: Parley, canaries: Canaries) -> None:
    log = parley.log.read_bytes()
    assert b"request_finished" in log
    assert [line for line in log.splitlines() if canaries.in_(line)] == []


def test_it_is_not_in_the_database_metrics_files_or_sockets(
    left_behind: Path, canaries: Canaries
) -> None:
    kept = [file for file in left_behind.rglob("*") if file.is_file()]
    assert {"parley.sqlite"} <= {file.name for file in kept}
    contents = [file for file in kept if file.suffix not in (".parked", ".part")]
    assert [file for file in contents if canaries.in_(file.read_bytes())] == []


def test_it_is_in_no_name_of_a_file(left_behind: Path, canaries: Canaries) -> None:
    names = [str(file.relative_to(left_behind)).encode() for file in left_behind.rglob("*")]
    assert [name for name in names if canaries.in_(name)] == []


def test_an_engine_that_crashes_leaves_no_core_file(left_behind: Path, parley: Parley) -> None:
    assert '"engine_crashed"' in parley.log.read_text()
    assert [file for file in left_behind.rglob("core*") if file.is_file()] == []


def test_what_was_kept_and_erased_is_not_in_the_database(
    left_behind: Path, client: httpx.Client, canaries: Canaries
) -> None:
    kept = f"kranich{secrets.token_hex(6)}"
    reply = client.post("/chat", json={"message": f"Remember {kept}.", "max_tokens": 4})
    assert reply.status_code == 200
    assert (
        client.post("/v1/responses", json={"input": kept, "max_output_tokens": 16}).status_code
        == 200
    )
    assert client.get("/v1/conversations/search", params={"q": kept}).text.count(kept) > 0
    reply = client.delete("/v1/conversations", params={"everything": True})
    assert reply.status_code == 200, reply.text
    state = left_behind / "state"
    assert [file for file in state.glob("*.sqlite*") if kept.encode() in file.read_bytes()] == []
