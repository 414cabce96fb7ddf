"""Models are switched under load, with real engines."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import httpx
import pytest

from service.models.registry import BUILT_IN_DIR
from tests.e2e.parley import NUM_ASKED, Parley, running_parley
from tests.faults.streams import start_streams
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

POCKET = BUILT_IN_DIR / "pocket.gguf"
LONG = 600  # tokens: eight streams of Pocket outlast the start of an engine


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """Pocket answers before and after every test."""
    folder = tmp_path_factory.mktemp("switch")
    models = folder / "state" / "models"
    models.mkdir(parents=True)
    shutil.copy(POCKET, models / "other.gguf")
    (models / "broken.gguf").write_bytes(POCKET.read_bytes()[:100_000])
    (models / "registry.toml").write_text(
        '[other]\nfile = "other.gguf"\n'
        '[broken]\nfile = "broken.gguf"\n'
        '[dull]\nfile = "other.gguf"\n'
        '[[dull.golden]]\nprompt = "What is the capital of France?"\npattern = "Rome"\n'
        '[slow]\nfile = "other.gguf"\nmin_tokens_per_second = 1e9\n'
    )
    patience = {"PARLEY_DRAIN_SECONDS": "180"}  # with a machine that has much else to do
    with running_parley(folder, "--model", "pocket", environment=patience) as service:
        service.wait_healthy()
        yield service


def switch(service: Parley, model: str) -> httpx.Response:
    body = {"model": model, "wait": True}
    return httpx.post(service.url + "/v1/models/switch", json=body, timeout=180)


class Callers:
    """Threads that ask short questions, of whatever model answers, until told to stop.

    Each asks at least once, and once more when told to stop: what serves afterwards answers, too.
    """

    def __init__(self, service: Parley, count: int) -> None:
        self.statuses: list[int] = []
        self._service = service
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive()

    def go_on(self, count: int) -> None:
        """Returns when so many more have been answered."""
        wanted = len(self.statuses) + count
        until(lambda: len(self.statuses), lambda found: found >= wanted)

    def _call(self) -> None:
        body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
        with httpx.Client(base_url=self._service.url, timeout=120) as client:
            while True:
                last = self._stop.is_set()
                self.statuses.append(client.post("/v1/chat/completions", json=body).status_code)
                if last:
                    return


def test_under_eight_streams_nothing_breaks_and_nobody_is_refused(parley: Parley) -> None:
    streams = start_streams(parley.url, 8, LONG)
    with Callers(parley, 2) as callers:
        for model in ("other", "pocket", "other"):
            reply = switch(parley, model)
            assert (reply.status_code, reply.json()["current"]) == (200, model)
            callers.go_on(5)
        for stream in streams:
            stream.wait()
    assert {(s.status, s.finish_reason, s.whole, s.broken) for s in streams} == {
        (200, "length", True, "")
    }
    assert {s.completion_tokens for s in streams} == {LONG}
    assert set(callers.statuses) == {200}
    until(  # in whichever worker
        lambda: {parley.get("/v1/models").json()["data"][0]["id"] for _ in range(NUM_ASKED)},
        lambda names: names == {"other"},
    )
    assert switch(parley, "pocket").status_code == 200


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("broken", 400, "broken.gguf"),
        ("dull", 503, "the answer should match 'Rome'"),
        ("slow", 503, "1e+09 are demanded"),
    ],
)
def test_a_bad_model_leaves_the_old_one_serving_and_says_why(
    parley: Parley, model: str, status: int, words: str
) -> None:
    with Callers(parley, 1) as callers:
        reply = switch(parley, model)
    message = reply.json()["error"]["message"]
    assert (reply.status_code, words in message) == (status, True), message
    if status == 503:
        assert message.endswith("pocket goes on answering.")
    assert set(callers.statuses) == {200}
    state = parley.get("/v1/models/state").json()
    assert (state["current"], state["wanted"]) == ("pocket", "pocket")
    assert "Paris" in parley.chat("What is the capital of France?").text
