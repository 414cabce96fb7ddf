"""The way out to the network for what strangers name: to public addresses, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpcore2

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]

# IPv6 addresses that stand for an IPv4 address, which their last four bytes are.
_TRANSLATED = IPv6Network("64:ff9b::/96")


class NotPublic(Exception):
    """The host has an address that is not everybody's."""


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could reach it: not this machine, its network, or another
    that is set aside; nor one of those spelled as IPv6."""
    if isinstance(address, IPv6Address):
        if address in _TRANSLATED:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host. Raises `OSError` where it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(str(each[4][0]).partition("%")[0]) for each in found]


class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that it has looked at, not to names: a name may mean another address
    a moment later. The name stays what a certificate is checked against."""

    def __init__(
        self, resolve: Resolve = resolve, is_allowed: Callable[[Address], bool] = is_public
    ) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises `NotPublic` where one of the host's addresses is not."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} has no address") from error
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise NotPublic(host)
        return await self._inner.connect_tcp(
            str(addresses[0]), port, timeout, local_address, socket_options
        )
