"""A real `parley serve` as a child of the test, and small clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.ports import free_port
from tests.waiting import until

PARLEY = Path(sys.executable).with_name("parley")
START_SECONDS, STOP_SECONDS = 240, 120  # of a machine that has much else to do
# Workers hear of a new engine one after the other; so many answers in a row come from all of them.
NUM_ASKED = 20
# A connection for each request, so that any worker may answer and a dead one is not asked again.
ANEW = httpx.Limits(max_keepalive_connections=0)


def new_client() -> httpx.Client:
    return httpx.Client(limits=ANEW, timeout=120)


def create_token(folder: Path, name: str, *options: str) -> str:
    """The secret of a new access token for a service whose state is in `folder`."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    made = subprocess.run(
        [PARLEY, "token", "create", "--name", name, *options],
        env=variables | {"PARLEY_STATE_DIR": str(folder / "state")},
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return made.stdout.strip()


@dataclass
class Parley:
    """A running service. `process` is the supervisor."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    client: httpx.Client = field(default_factory=new_client)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(self.url + path)

    def chat(self, text: str, **body: object) -> httpx.Response:
        """One greedy, non-streamed answer of the OpenAI dialect."""
        return self.client.post(self.url + "/v1/chat/completions", json=chat_body(text, **body))

    def lines(self) -> list[str]:
        """The lines of the log that are there whole."""
        return [line.decode(errors="replace") for line in self.log.read_bytes().split(b"\n")[:-1]]

    def is_everywhere(self, status: int) -> bool:
        """Whether `/health` says this, whichever worker is asked."""
        return all(self.get("/health").status_code == status for _ in range(NUM_ASKED))

    def wait_healthy(self, seconds: float = START_SECONDS) -> float:
        """Seconds until `/health` says 200, in every worker. Fails with the log where that does
        not happen."""
        start = time.monotonic()
        until(self._health, lambda said: said == "healthy", seconds)
        return time.monotonic() - start

    def _health(self) -> str:
        """The word "healthy", or the log that says why not."""
        assert self.process.poll() is None, f"parley exited:\n{self.log.read_text()}"
        with contextlib.suppress(httpx.TransportError):
            if self.is_everywhere(200):
                return "healthy"
        return self.log.read_text()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_SECONDS)


def chat_body(text: str, **body: object) -> dict[str, object]:
    return {
        "model": "pocket",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        **body,
    }


def stream_text(
    url: str, text: str, on_begin: Callable[[], object] = lambda: None, **body: object
) -> str:
    """The streamed answer of the OpenAI dialect, put together; demands a well-formed end.

    `on_begin` is called at the first text.
    """
    pieces: list[str] = []
    done = False
    payload = chat_body(text, stream=True, **body)
    with httpx.stream("POST", url + "/v1/chat/completions", json=payload, timeout=120) as reply:
        assert reply.status_code == 200, reply.read()
        for line in reply.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                for choice in json.loads(line[6:])["choices"]:
                    pieces.append(choice["delta"].get("content") or "")
                    if pieces[-1]:
                        on_begin()
    assert done
    return "".join(pieces)


@contextlib.contextmanager
def running_parley(
    directory: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[Parley]:
    """`parley serve` on a free port with its state and runtime files under `directory`."""
    port = free_port()
    log = directory / "parley.log"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")} | {
        "PARLEY_STATE_DIR": str(directory / "state"),
        **(environment or {}),
    }
    command = [str(PARLEY), "serve", "--port", str(port), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=variables
        )
        service = Parley(process, f"http://127.0.0.1:{port}", log)
        try:
            yield service
        finally:
            service.client.close()
            service.stop()
