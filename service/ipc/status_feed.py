"""The workers' end of the supervisor's status socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from service.ipc.status import ServiceStatus, from_line
from service.log import get_logger

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
MAX_LINE_BYTES = 1024 * 1024

log = get_logger(__name__)


class StatusFeed:
    """Follow the supervisor for as long as this worker lives.

    `on_status` gets every status in order. `on_silence` is called when the supervisor, once
    heard, can't be reached any more: it is going down, and so is this worker.
    """

    def __init__(
        self,
        socket: Path,
        on_status: Callable[[ServiceStatus], None],
        on_silence: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._on_status = on_status
        self._on_silence = on_silence
        self._heard = False

    async def follow(self) -> None:
        """Never returns; ends by being cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            if await self._listen():
                pause = FIRST_PAUSE_SECONDS  # it may only have dropped this connection
            elif self._heard:
                self._on_silence()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _listen(self) -> bool:
        """Pass on what one connection says until it ends; whether it said anything."""
        try:
            reader, writer = await asyncio.open_unix_connection(
                str(self._socket), limit=MAX_LINE_BYTES
            )
        except OSError:
            return False
        said_anything = False
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                said_anything |= self._pass_on(line)
        except (OSError, ValueError) as error:  # ValueError: a line without end
            log.warning("status_connection_broke", error=str(error))
        finally:
            writer.close()
        return said_anything

    def _pass_on(self, line: bytes) -> bool:
        try:
            status = from_line(line)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("status_not_understood", error=repr(error))
            return False
        self._heard = True
        self._on_status(status)
        return True
