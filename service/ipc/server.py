"""The engine's end of the socket: one unix stream connection per worker, many requests on each.

Knows frames, not what they mean. One thread runs `Server.run`; `post`, `call` and `stop` may come
from any. Sending never blocks: what a worker does not read is kept, up to a bound, and then the
worker is dropped.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from service import log
from service.domain.errors import ServiceError
from service.ipc.framing import FrameReader, FramingError, encode, to_engine_decoder
from service.ipc.messages import Frame, Hello, ToEngine

MAX_UNSENT_BYTES = 8 * 1024 * 1024
_READ_BYTES = 256 * 1024
_FLUSH_SECONDS = 2.0

_log = log.get_logger(__name__)


class Receiver(Protocol):
    """Who makes sense of the frames. Called in the server's thread; must not wait."""

    def received(self, connection: int, frame: ToEngine) -> None: ...

    def disconnected(self, connection: int) -> None:
        """No more frames will come from `connection`, and nothing can be sent to it."""
        ...


class _Connection:
    """One worker: its socket, and the bytes on their way in and out."""

    def __init__(self, number: int, link: socket.socket, receiver: Receiver) -> None:
        self.number = number
        self.link = link
        self.receiver = receiver
        self._reader = FrameReader()
        self.unsent = bytearray()

    def send(self) -> None:
        """As much as the socket takes now. Raises `OSError` when the peer is gone."""
        while self.unsent:
            try:
                sent = self.link.send(self.unsent)
            except BlockingIOError:
                return
            del self.unsent[:sent]

    def receive(self) -> bool:
        """Hand on the frames that have come; False at the end of the stream.

        Raises `OSError`, `FramingError`, `msgspec.DecodeError` or `ServiceError` for a peer that
        is gone or does not speak this protocol.
        """
        try:
            data = self.link.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        for body in self._reader.feed(data):
            self.receiver.received(self.number, to_engine_decoder.decode(body))
        return bool(data)


class Server:
    """A selector loop around one listening socket, its connections, and a few other descriptors."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._num_accepted = 0
        self._posted: deque[tuple[int, Frame] | Callable[[], None]] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self.watch(self._wake_in, self._drain_wakes)
        self._tick: tuple[float, Callable[[], None]] | None = None
        self._stopping = False
        self._listener: socket.socket | None = None
        self._path: Path | None = None

    # --- any thread --------------------------------------------------------------------------
    def post(self, connection: int, frame: Frame) -> None:
        """Send `frame`; frames of one connection keep their order. Unknown connections (gone by
        now) are ignored."""
        self._hand_over((connection, frame))

    def call(self, action: Callable[[], None]) -> None:
        """Run `action` in the server's thread, after what was posted before."""
        self._hand_over(action)

    def stop(self) -> None:
        """Make `run` return, once what was posted before has been sent (or 2 s have passed)."""
        self.call(self._stop)

    # --- the server's thread -----------------------------------------------------------------
    def listen(self, path: Path, hello: Hello, receiver: Receiver) -> None:
        """Accept workers at `path` (mode 0600), greeting each with `hello`. Raises `OSError`."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        self._listener, self._path = listener, path
        greeting = encode(hello)
        self.watch(listener, lambda: self._accept(listener, greeting, receiver))

    def watch(self, readable: socket.socket, action: Callable[[], None]) -> None:
        """Run `action` whenever `readable` has something to read."""
        self._selector.register(readable, selectors.EVENT_READ, lambda _events: action())

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` in the loop, that often."""
        self._tick = (seconds, action)

    def run(self) -> None:
        """Serve until `stop`; closes everything on the way out."""
        due = time.monotonic()
        try:
            while not self._stopping:
                if self._tick is not None and time.monotonic() >= due:
                    seconds, action = self._tick
                    due = time.monotonic() + seconds
                    action()
                self._wait(None if self._tick is None else max(0.0, due - time.monotonic()))
            self._flush()
        finally:
            self.close()

    def close(self) -> None:
        """Close all sockets and remove the path. Idempotent."""
        for connection in list(self._connections.values()):
            connection.link.close()
        self._connections.clear()
        if self._listener is not None and self._path is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)
            self._listener = None
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _wait(self, timeout: float | None) -> None:
        for key, events in self._selector.select(timeout):
            act: Callable[[int], None] = key.data
            act(events)

    def _hand_over(self, item: tuple[int, Frame] | Callable[[], None]) -> None:
        self._posted.append(item)
        # A full pipe of wakes is as good as one more; a closed one has nobody left to wake.
        with contextlib.suppress(OSError):
            self._wake_out.send(b"w")

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        touched: set[int] = set()
        while self._posted:
            item = self._posted.popleft()
            if not isinstance(item, tuple):
                item()
            elif item[0] in self._connections:
                self._connections[item[0]].unsent += encode(item[1])
                touched.add(item[0])
        for number in touched:
            if number in self._connections:
                self._send(self._connections[number])

    def _accept(self, listener: socket.socket, greeting: bytes, receiver: Receiver) -> None:
        try:
            link, _ = listener.accept()
        except OSError:  # gone between the poll and the call
            return
        link.setblocking(False)
        self._num_accepted += 1
        connection = _Connection(self._num_accepted, link, receiver)
        self._connections[connection.number] = connection
        self._selector.register(
            link, selectors.EVENT_READ, lambda events: self._attend(connection, events)
        )
        connection.unsent += greeting
        self._send(connection)

    def _attend(self, connection: _Connection, events: int) -> None:
        # An action before this one may have dropped it.
        if events & selectors.EVENT_WRITE and connection.number in self._connections:
            self._send(connection)
        if events & selectors.EVENT_READ and connection.number in self._connections:
            try:
                if not connection.receive():
                    self._drop(connection, "closed")
            except (OSError, FramingError, msgspec.DecodeError, ServiceError) as error:
                self._drop(connection, f"unreadable: {error}")

    def _send(self, connection: _Connection) -> None:
        try:
            connection.send()
        except OSError as error:
            self._drop(connection, f"unwritable: {error}")
            return
        if len(connection.unsent) > MAX_UNSENT_BYTES:
            self._drop(connection, f"{len(connection.unsent)} bytes unread")
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        key = self._selector.get_key(connection.link)
        if key.events != wanted:
            self._selector.modify(connection.link, wanted, key.data)

    def _drop(self, connection: _Connection, reason: str) -> None:
        """Forget a worker; closing the socket tells it, if it still listens."""
        del self._connections[connection.number]
        self._selector.unregister(connection.link)
        connection.link.close()
        _log.info("worker_disconnected", connection=connection.number, reason=reason)
        connection.receiver.disconnected(connection.number)

    def _stop(self) -> None:
        self._stopping = True

    def _flush(self) -> None:
        """Give slow workers a moment to read the last words."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while any(c.unsent for c in self._connections.values()):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            self._wait(remaining)
