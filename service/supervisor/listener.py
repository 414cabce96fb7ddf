"""The socket that HTTP arrives on.

The supervisor holds it, and lends it to gunicorn by number: a taken port is refused before
anything is loaded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from service.supervisor.plan import Plan
from service.supervisor.refusal import Refusal

BACKLOG = 2048


def open_listener(plan: Plan) -> socket.socket:
    """A listening socket at the plan's address. Raises `Refusal` naming the address."""
    if plan.unix_socket is not None:
        return _open_unix(plan.unix_socket)
    try:
        found = socket.getaddrinfo(
            plan.host, plan.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refusal(
            f"{plan.host} is not an address of this machine ({reason}); "
            "--host takes 127.0.0.1, 0.0.0.0, or a name or address that this machine has."
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"{plan.host}:{plan.port}", error) from error
    return listener


def close_listener(listener: socket.socket, plan: Plan) -> None:
    listener.close()
    if plan.unix_socket is not None:
        plan.unix_socket.unlink(missing_ok=True)


def _cannot_listen(place: str, error: OSError) -> Refusal:
    if error.errno == errno.EADDRINUSE:
        return Refusal(
            f"{place} is in use by another program; stop that one, or choose a free port "
            "with --port."
        )
    if error.errno == errno.EACCES:
        return Refusal(
            f"{place} needs more rights than this user has; choose a port above 1023 with --port."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return Refusal(
            f"{place} is not an address of this machine; --host takes 127.0.0.1, 0.0.0.0, "
            "or an address that this machine has."
        )
    return Refusal(f"Cannot listen on {place}: {error.strerror}.")


def _open_unix(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Refusal(f"{path} exists and is not a socket; PARLEY_API__UNIX_SOCKET names one.")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(os.fspath(path)) == 0:
                raise Refusal(f"{path} is in use by another program; stop that one.")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(os.fspath(path), error) from error
    return listener
