"""What systemd is told, over the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass

# While something is on its way systemd must not give up; asked anew more often than it runs out.
EXTENSION_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Systemd:
    """The notification socket, or nothing where systemd did not start us.

    `watchdog_seconds` is how often a sign of life is expected; None when it is not.
    """

    address: str | None = None
    watchdog_seconds: float | None = None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def extend(self) -> None:
        """Ask for more time to start."""
        self._send(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        # systemd may be restarting; nothing here depends on its answer.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier,
        ):
            notifier.sendto(message.encode(), self.address)


def take_systemd(environment: MutableMapping[str, str]) -> Systemd:
    """What `environment` says of systemd, taken out of it so that no child speaks for us."""
    address = environment.pop("NOTIFY_SOCKET", "")
    microseconds = environment.pop("WATCHDOG_USEC", "")
    meant_for = environment.pop("WATCHDOG_PID", "")
    watched = microseconds.isdigit() and meant_for in ("", str(os.getpid()))
    if not address.startswith(("/", "@")):
        return Systemd()
    return Systemd(
        address="\0" + address[1:] if address.startswith("@") else address,
        watchdog_seconds=int(microseconds) / 1_000_000 if watched else None,
    )
