"""What can be asked of the supervisor: one JSON line on its status socket, answered by one.

Between the status lines that everybody hears there, the one who asked hears `{"reply": …}`. Who
may connect is a matter of the runtime directory's mode. Standard library only, because the
supervisor is.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from service.domain.errors import EngineUnavailable, ServiceError, error_codes
from service.domain.model import Mode

ANSWER_SECONDS = 10.0
MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SwitchCommand:
    """Let another model take over from the present one of its mode.

    `path` None: it has to be fetched first, as `source` (a name, or REPO:FILE). `adapters`
    are LoRA files, as `PATH=SCALE`. `beside`: it does not take over, but is a guest beside the
    present one, for those who ask for it.
    """

    name: str
    path: Path | None = None
    source: str = ""
    mode: Mode = Mode.CHAT
    adapters: tuple[str, ...] = ()
    beside: bool = False

    def to_line(self) -> bytes:
        model = {
            "name": self.name,
            "path": str(self.path) if self.path is not None else None,
            "source": self.source,
            "mode": self.mode,
            "adapters": self.adapters,
        }
        return json.dumps({"switch": model, "beside": self.beside}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class WakeCommand:
    """Bring back a model that is asleep. Nothing happens where none is."""

    def to_line(self) -> bytes:
        return b'{"wake": true}\n'


def accepted_line(number: int) -> bytes:
    """The reply to a command that is being carried out, as number `number`."""
    return json.dumps({"reply": {"accepted": number}}).encode() + b"\n"


def refused_line(error: ServiceError) -> bytes:
    """The reply to a command that will not be carried out."""
    return json.dumps({"reply": {"refused": error.message, "code": error.code}}).encode() + b"\n"


async def send_command(socket: Path, command: SwitchCommand | WakeCommand) -> int:
    """The number under which the supervisor carries `command` out.

    Raises its refusal as a `ServiceError`, and `EngineUnavailable` where nobody answers.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reply = await _ask(socket, command.to_line())
    except (OSError, ValueError) as error:
        raise EngineUnavailable(
            f"The service's supervisor cannot be asked ({str(error) or type(error).__name__}).",
            retry_after_seconds=5.0,
        ) from error
    if "accepted" in reply:
        return int(str(reply["accepted"]))
    kind = error_codes().get(str(reply.get("code")), ServiceError)
    raise kind(str(reply.get("refused")))


async def _ask(socket: Path, line: bytes) -> dict[str, object]:
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MAX_LINE_BYTES)
    try:
        writer.write(line)
        while (heard := await reader.readline()).endswith(b"\n"):
            facts = json.loads(heard)
            if isinstance(facts, dict) and isinstance(reply := facts.get("reply"), dict):
                return reply
    finally:
        writer.close()
    raise ConnectionResetError("it hung up")
