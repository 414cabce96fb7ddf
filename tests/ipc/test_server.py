from __future__ import annotations

import queue
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.ipc.framing import FrameReader, encode, from_engine_decoder
from service.ipc.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Counted,
    FromEngine,
    Hello,
    Refused,
    ToEngine,
)
from service.ipc.server import MAX_UNSENT_BYTES, Server
from tests.fakes.runner import model_info

SECONDS = 60  # a machine may have much else to do


@dataclass
class Noted:
    """A receiver that keeps what it hears."""

    frames: queue.SimpleQueue[tuple[int, ToEngine]] = field(default_factory=queue.SimpleQueue)
    gone: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)

    def received(self, connection: int, frame: ToEngine) -> None:
        self.frames.put((connection, frame))

    def disconnected(self, connection: int) -> None:
        self.gone.put(connection)


class Worker:
    """The other end, blocking."""

    def __init__(self, path: Path) -> None:
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.link.settimeout(SECONDS)
        self.link.connect(str(path))
        self._reader = FrameReader()
        self._frames: list[FromEngine] = []

    def read(self) -> FromEngine | None:
        """The next frame; None at the end of the stream."""
        while not self._frames:
            data = self.link.recv(65536)
            if not data:
                return None
            self._frames += map(from_engine_decoder.decode, self._reader.feed(data))
        return self._frames.pop(0)


@dataclass
class Running:
    server: Server
    receiver: Noted
    path: Path
    thread: threading.Thread
    workers: list[Worker] = field(default_factory=list)

    def connect(self) -> Worker:
        self.workers.append(Worker(self.path))
        assert isinstance(self.workers[-1].read(), Hello)
        return self.workers[-1]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server, receiver, path = Server(), Noted(), tmp_path / "engine.sock"
    server.listen(path, Hello(PROTOCOL_VERSION, 1, model_info()), receiver)
    thread = threading.Thread(target=server.run)
    thread.start()
    everything = Running(server, receiver, path, thread)
    try:
        yield everything
    finally:
        for worker in everything.workers:
            worker.link.close()
        server.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_a_worker_is_greeted_with_the_model(running: Running) -> None:
    worker = Worker(running.path)
    hello = worker.read()
    worker.link.close()
    assert isinstance(hello, Hello)
    assert (hello.protocol_version, hello.model) == (PROTOCOL_VERSION, model_info())


def test_only_the_owner_may_connect(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600


def test_frames_arrive_whole_however_they_are_cut(running: Running) -> None:
    worker = running.connect()
    data = encode(Cancel(7)) + encode(Cancel(8))
    for at in range(len(data)):
        worker.link.sendall(data[at : at + 1])
    received = [running.receiver.frames.get(timeout=SECONDS)[1] for _ in range(2)]
    assert received == [Cancel(7), Cancel(8)]


def test_what_is_posted_reaches_the_right_worker_in_order(running: Running) -> None:
    first, second = running.connect(), running.connect()
    for number in range(50):
        running.server.post(1, Counted(number, 1))
        running.server.post(2, Counted(number, 2))
    assert [first.read() for _ in range(50)] == [Counted(n, 1) for n in range(50)]
    assert [second.read() for _ in range(50)] == [Counted(n, 2) for n in range(50)]


def test_a_worker_that_leaves_is_reported(running: Running) -> None:
    worker = running.connect()
    worker.link.close()
    assert running.receiver.gone.get(timeout=SECONDS) == 1
    running.server.post(1, Counted(1, 1))  # nobody is there any more: nothing happens
    assert isinstance(running.connect().link, socket.socket)


def test_a_worker_that_does_not_speak_the_protocol_is_dropped(running: Running) -> None:
    stranger, friend = running.connect(), running.connect()
    stranger.link.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert stranger.read() is None
    assert running.receiver.gone.get(timeout=SECONDS) == 1
    running.server.post(2, Counted(5, 5))
    assert friend.read() == Counted(5, 5)


@pytest.mark.parametrize(
    "body", [b"\x93\xa6cancel\x01\x02", b"\xc1", b'["cancel", 1]', b"\x92\xa6cancel\xa1x"]
)
def test_a_frame_that_makes_no_sense_drops_the_worker(running: Running, body: bytes) -> None:
    worker = running.connect()
    worker.link.sendall(len(body).to_bytes(4, "big") + body)
    if body != b"\x93\xa6cancel\x01\x02":  # a newer peer may send more fields
        assert worker.read() is None
        assert running.receiver.gone.get(timeout=SECONDS) == 1


def test_a_worker_that_never_reads_is_dropped_and_nobody_waits_for_it(running: Running) -> None:
    slow, quick = running.connect(), running.connect()
    frame = Refused(1, "x", "y" * 1_000_000)
    for _ in range(MAX_UNSENT_BYTES // 1_000_000 + 3):
        running.server.post(1, frame)
    assert running.receiver.gone.get(timeout=SECONDS) == 1
    running.server.post(2, Counted(5, 5))
    assert quick.read() == Counted(5, 5)
    assert slow.link.fileno() >= 0


def test_last_words_are_delivered_before_the_server_ends(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ipc.server._FLUSH_SECONDS", SECONDS)
    worker = running.connect()
    frame = Refused(1, "x", "y" * 1_000_000)
    for _ in range(3):
        running.server.post(1, frame)
    running.server.stop()
    assert [worker.read() for _ in range(4)] == [frame, frame, frame, None]
    running.thread.join(SECONDS)
    assert not running.path.exists()


def test_actions_run_in_the_servers_thread_after_what_was_posted(running: Running) -> None:
    worker = running.connect()
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    running.server.post(1, Counted(1, 1))
    running.server.call(lambda: names.put(threading.current_thread().name))
    assert names.get(timeout=SECONDS) == running.thread.name
    assert worker.read() == Counted(1, 1)
