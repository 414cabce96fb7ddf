"""The `Engines` of whoever was given one engine's socket: no supervisor, and no successor."""

from __future__ import annotations

from pathlib import Path

from service.domain.errors import EngineUnavailable
from service.domain.model import Mode, ModelInfo
from service.ipc.client import ConnectedClient, EngineClient
from service.ipc.command import SwitchCommand
from service.ipc.connection import Connection
from service.ipc.framing import FramingError
from service.ipc.status import EngineState, EngineStatus, Phase, ServiceStatus
from service.ipc.suspects import Suspects


class OneEngine:
    """Answers as long as its engine does. A job whose engine dies is not sent again."""

    resubmit_seconds = 0.0

    def __init__(self, connection: Connection, socket: Path) -> None:
        self._connection = connection
        self.suspects = Suspects(None)
        name, mode = connection.model.name, connection.model.mode
        engine = EngineStatus(1, name, str(socket), EngineState.READY, 1.0, mode, is_current=True)
        self.status = ServiceStatus(Phase.SERVING, name, 1, (engine,))

    @classmethod
    async def connect(cls, socket: Path) -> OneEngine:
        """Raises `EngineUnavailable` where no engine of ours answers."""
        try:
            return cls(await Connection.open(socket), socket)
        except (OSError, FramingError) as error:
            raise EngineUnavailable(f"The engine cannot be reached ({error}).") from error

    def current(self, mode: Mode = Mode.CHAT) -> EngineClient:
        return ConnectedClient(self, self._connection)

    def guest(self, model: str) -> EngineClient | None:
        return None

    @property
    def resting(self) -> ModelInfo | None:
        return None

    async def successor(self, after: Connection, seconds: float) -> Connection | None:
        return None

    async def switch(self, command: SwitchCommand) -> int:
        raise EngineUnavailable("Nobody here can switch models.")

    async def news(self) -> None:
        """Returns when the engine has gone: nothing else can change."""
        await self._connection.closed.wait()

    async def bridged(self) -> None:
        """There is nothing to wait for."""

    async def settled(self, seconds: float = 2.0) -> None:
        """There is nobody to wait for."""

    async def aclose(self) -> None:
        self._connection.close()
