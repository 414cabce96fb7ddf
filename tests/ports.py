"""Places to listen on."""

from __future__ import annotations

import random
import socket

# Below what the kernel gives to outgoing connections, so none of those can take one meanwhile.
PORTS = range(20_000, 30_000)
_kept: list[socket.socket] = []


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses, and that no other test is given.

    Tests run in several processes: the port's name is taken in the kernel for as long as this one
    lives.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if _is_ours(port) and _is_free(port):
            return port
    raise AssertionError("no port is free")


def _is_ours(port: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0parley-test-port-{port}")
    except OSError:
        name.close()
        return False
    _kept.append(name)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
