"""A client and an answer that take their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def drops() -> AsyncIterator[bytes]:
    """Four pieces, which together take longer than a hasty head may."""
    for _ in range(4):
        await asyncio.sleep(0.1)
        yield b"drop "


async def exchange(url: str, *pieces: bytes, pause: float = 0.0) -> tuple[int, bytes]:
    """Send pieces with pauses; the status, and all that came until the server closed. No status
    is 0."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(20):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            said = await reader.read()
    except ConnectionError:
        said = b""
    finally:
        writer.close()
    return (int(said[9:12]) if said else 0), said
