"""A client and an answer that take their time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

_AT_ONCE = 1000


async def drops() -> AsyncIterator[bytes]:
    """Four pieces, which together take longer than a hasty head may."""
    for _ in range(4):
        await asyncio.sleep(0.1)
        yield b"drop "


async def exchange(url: str, *pieces: bytes, pause: float = 0.0) -> tuple[int, bytes]:
    """Send pieces with pauses; the status, and all that came until the server closed. No status
    is 0.

    The beginning lies there before the server looks, so that only what comes later can be late;
    and what the server says is read while the client still writes, because a server that closes
    then may take back what it has said.
    """
    host, port = url.removeprefix("http://").split(":")
    link = socket.create_connection((host, int(port)))
    link.sendall(pieces[0][:_AT_ONCE])
    reader, writer = await asyncio.open_connection(sock=link)
    said = asyncio.create_task(_all_of(reader))
    try:
        async with asyncio.timeout(60):
            with suppress(ConnectionError):  # it was closed before everything was written
                for piece in (pieces[0][_AT_ONCE:], *pieces[1:]):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause)
            heard = await said
    finally:
        said.cancel()
        writer.close()
    return (int(heard[9:12]) if heard else 0), heard


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    heard = b""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            heard += data
    return heard
