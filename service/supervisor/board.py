"""Where workers read what the supervisor sees, as `service.ipc.status` lines on a unix socket, and
where they may ask for something, as `service.ipc.command` says."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

from service.ipc.status import ServiceStatus, to_line
from service.supervisor.loop import Loop

# A worker that has not read this much is stuck; it reconnects when it comes back to life.
MAX_UNSENT_BYTES = 256 * 1024
MAX_COMMAND_BYTES = 64 * 1024


class Board:
    """The present status, told to each reader when it comes and whenever it changes.

    `on_reader` is called when somebody starts to read, `on_command` with each line that somebody
    says; what it returns is said to that one.
    """

    def __init__(
        self,
        loop: Loop,
        path: Path,
        on_reader: Callable[[], None],
        on_command: Callable[[bytes], bytes],
    ) -> None:
        self._loop = loop
        self._on_reader = on_reader
        self._on_command = on_command
        self._heard: dict[socket.socket, bytearray] = {}
        self._status = ServiceStatus()
        self._unsent: dict[socket.socket, bytearray] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(path))
        path.chmod(0o600)
        self._listener.listen(128)
        self._listener.setblocking(False)
        loop.watch(self._listener.fileno(), selectors.EVENT_READ, self._accept)

    @property
    def num_readers(self) -> int:
        return len(self._unsent)

    def show(self, status: ServiceStatus) -> None:
        """Tell everybody, if it is news."""
        if status == self._status:
            return
        self._status = status
        line = to_line(status)
        for reader in list(self._unsent):
            self._send(reader, line)

    def close(self) -> None:
        for reader in list(self._unsent):
            self._drop(reader)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            reader, _ = self._listener.accept()
            reader.setblocking(False)
            self._unsent[reader] = bytearray()
            self._heard[reader] = bytearray()
            self._loop.watch(reader.fileno(), selectors.EVENT_READ, lambda: self._listen(reader))
            self._send(reader, to_line(self._status))
            self._on_reader()

    def _listen(self, reader: socket.socket) -> None:
        """Readers say little; mostly, that one can be read means it has gone."""
        try:
            data = reader.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        heard = self._heard[reader]
        heard += data
        if not data or len(heard) > MAX_COMMAND_BYTES:
            self._drop(reader)
            return
        *lines, rest = bytes(heard).split(b"\n")
        heard[:] = rest
        for line in lines:
            reply = self._on_command(line)
            if reader in self._unsent:  # what was asked for may have been news to it
                self._send(reader, reply)

    def _send(self, reader: socket.socket, line: bytes) -> None:
        self._unsent[reader] += line
        if len(self._unsent[reader]) > MAX_UNSENT_BYTES:
            self._drop(reader)
        else:
            self._flush(reader)

    def _flush(self, reader: socket.socket) -> None:
        unsent = self._unsent[reader]
        try:
            sent = reader.send(unsent) if unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(reader)
            return
        del unsent[:sent]
        if unsent:
            events = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._loop.watch(reader.fileno(), events, lambda: self._go_on(reader))
        else:
            events = selectors.EVENT_READ
            self._loop.watch(reader.fileno(), events, lambda: self._listen(reader))

    def _go_on(self, reader: socket.socket) -> None:
        self._listen(reader)
        if reader in self._unsent:
            self._flush(reader)

    def _drop(self, reader: socket.socket) -> None:
        self._loop.unwatch(reader.fileno())
        del self._unsent[reader], self._heard[reader]
        reader.close()
