"""A real engine process on the built-in model, and a blocking client for it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from service.domain.chat import Prompt, PromptPiece
from service.domain.model import Mode
from service.domain.sampling import Sampling
from service.ipc.framing import FrameReader, encode, from_engine_decoder
from service.ipc.messages import Accepted, Counted, Done, Frame, Hello, Refused, Step, Submit

POCKET = Path(__file__).parents[2] / "service" / "models" / "pocket.gguf"
SECONDS = 120


def prompt_of(*turns: str) -> Prompt:
    """User and assistant in turn, as the model's own template would put it, thinking off."""
    pieces = []
    for number, text in enumerate(turns):
        role = "assistant" if number % 2 else "user"
        pieces += [
            PromptPiece(f"<|im_start|>{role}\n", trusted=True),
            PromptPiece(text, trusted=False),
            PromptPiece("<|im_end|>\n", trusted=True),
        ]
    pieces.append(PromptPiece("<|im_start|>assistant\n<think>\n\n</think>\n\n", trusted=True))
    return tuple(pieces)


@dataclass
class Client:
    """One worker's connection. `texts` and `dones` grow while `read` is being called."""

    link: socket.socket
    texts: dict[int, str] = field(default_factory=dict)
    dones: dict[int, Done] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    ended: bool = False
    _reader: FrameReader = field(default_factory=FrameReader)

    def submit(self, request_id: int, *turns: str, **options: Any) -> None:
        facts: dict[str, Any] = {"sampling": Sampling(temperature=0), "max_tokens": 200, **options}
        self.send(Submit(request_id, f"request-{request_id}", prompt_of(*turns), **facts))

    def send(self, frame: Frame) -> None:
        self.link.sendall(encode(frame))

    def read(self, seconds: float) -> None:
        """What comes within `seconds`, or the next thing that does."""
        readable, _, _ = select.select([self.link], [], [], seconds)
        data = self.link.recv(65536) if readable else b""
        self.ended = bool(readable) and not data
        for body in self._reader.feed(data):
            frame = from_engine_decoder.decode(body)
            self.frames.append(frame)
            if isinstance(frame, Step):
                for delta in frame.deltas:
                    self.texts[delta.id] = self.texts.get(delta.id, "") + delta.text
                self.dones |= {done.id: done for done in frame.dones}

    def wait_begun(self, request_id: int) -> None:
        """Until there is some text of it."""
        end = time.monotonic() + SECONDS
        while not self.texts.get(request_id):
            assert time.monotonic() < end, f"{request_id} has not begun"
            self.read(SECONDS)

    def wait(self, *request_ids: int) -> None:
        """Until all these have ended."""
        end = time.monotonic() + SECONDS
        while not set(request_ids) <= set(self.dones):
            assert not self.ended, "the engine hung up"
            assert time.monotonic() < end, f"no end of {set(request_ids) - set(self.dones)}"
            self.read(SECONDS)

    def answer(self, request_id: int, *turns: str, **options: Any) -> str:
        self.submit(request_id, *turns, **options)
        self.wait(request_id)
        return self.texts[request_id]

    def ask(self, question: Frame) -> list[Frame]:
        """All that is said to a question; the frames of an answer come until one is the last."""
        self.send(question)
        number = getattr(question, "id")  # noqa: B009  every question has one
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            said = [f for f in self.frames if getattr(f, "id", None) == number]
            if said and getattr(said[-1], "last", True):
                return said
            self.read(1)
        raise AssertionError(f"no answer to {number}")

    def reply(self, request_id: int) -> Accepted | Refused | Counted:
        """How the engine received a request."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for frame in self.frames:
                if isinstance(frame, Accepted | Refused | Counted) and frame.id == request_id:
                    return frame
            self.read(1)
        raise AssertionError(f"no reply to {request_id}")


@dataclass
class Engine:
    """The process; `status` is the supervisor's end of its status pipe."""

    process: subprocess.Popen[bytes]
    status: BinaryIO
    socket: Path
    log: Path
    clients: list[Client] = field(default_factory=list)

    def next_event(self, kind: str) -> dict[str, Any]:
        """The next line of that kind."""
        for line in self.status:
            facts: dict[str, Any] = json.loads(line)
            if facts["event"] == kind:
                return facts
        raise AssertionError(f"no {kind}; the engine said:\n{self.log.read_text()}")

    def connect(self) -> Client:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.connect(str(self.socket))
        client = Client(link)
        self.clients.append(client)
        while not client.frames:
            client.read(SECONDS)
        assert isinstance(client.frames[0], Hello)
        return client


@contextlib.contextmanager
def running_engine(
    directory: Path,
    model: Path = POCKET,
    mode: Mode = Mode.CHAT,
    *,
    inside: Path | None = None,
    **settings: str,
) -> Iterator[Engine]:
    """`python -m service.engine`, `inside` a cgroup, with `settings` as PARLEY_ variables."""
    reading, writing = os.pipe()
    path, log = directory / "engine.sock", directory / "engine.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")}
    environment |= {"PARLEY_STATE_DIR": str(directory / "state"), **settings}
    command = [sys.executable, "-m", "service.engine", "--model-name", "pocket"]
    command += ["--model-path", str(model), "--socket", str(path), "--status-fd", str(writing)]
    command += ["--mode", mode]
    if inside is not None:
        enter = 'echo $$ > "$0" && exec "$@"'
        command = ["/bin/sh", "-c", enter, str(inside / "cgroup.procs"), *command]
    with log.open("wb") as output, os.fdopen(reading, "rb") as status:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, pass_fds=[writing]
        )
        os.close(writing)
        engine = Engine(process, status, path, log)
        try:
            yield engine
        finally:
            for client in engine.clients:
                client.link.close()
            process.kill()
            process.wait()
