"""Requests that were being answered when an engine died.

One that was there twice is refused for a while: it would bring down the next engine, too. One that
was there once is sent again alone, one at a time in this worker, so that the next death tells who
is to blame; and when it ends well, nothing is held against it any more. What is known is kept as
empty files in the runtime directory, where all workers find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import msgspec

from service.domain.errors import EngineUnavailable, PoisonousRequest
from service.ipc.messages import Submit
from service.ipc.status import ServiceStatus
from service.log import get_logger

DIRECTORY = "suspects"
# How long a crash is held against a request.
MEMORY_SECONDS = 600.0
MAX_CRASHES = 2
TURN_SECONDS = 120.0

log = get_logger(__name__)


class Suspects:
    """What this worker and its siblings know. `directory` None: nothing is ever held against
    anybody."""

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._lost: dict[int, list[str]] = {}
        self._crashed: frozenset[int] = frozenset()
        self._turn = asyncio.Lock()

    # --- what happened ------------------------------------------------------------------------
    def lost(self, engine_id: int, submit: Submit) -> None:
        """The connection to the engine ended while it worked on `submit`; whether it has died,
        the supervisor will say."""
        self._lost.setdefault(engine_id, []).append(digest_of(submit))
        self._record()

    def heard(self, status: ServiceStatus) -> None:
        """What the supervisor says of engines that have died."""
        self._crashed = frozenset(status.crashed)
        self._record()
        known = self._crashed | {engine.id for engine in status.engines}
        self._lost = {number: lost for number, lost in self._lost.items() if number in known}

    # --- what follows from it -----------------------------------------------------------------
    def num_crashes(self, submit: Submit) -> int:
        """How many engines died on it lately."""
        return sum(1 for _ in self._marks_of(submit))

    async def enter(self, submit: Submit) -> bool:
        """Whether it is suspected; then it has waited for its turn, and `leave` ends that.

        Raises `PoisonousRequest`, and `EngineUnavailable` where its turn does not come.
        """
        num_crashes = self.num_crashes(submit)
        if num_crashes == 0:
            return False
        if num_crashes >= MAX_CRASHES:
            raise poisonous(num_crashes)
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise EngineUnavailable(
                "The engine died while it answered this request; it is tried again after others "
                "that this happened to.",
                retry_after_seconds=TURN_SECONDS,
            ) from None
        return True

    def leave(self, submit: Submit, *, ended_well: bool) -> None:
        """The suspected request's turn is over."""
        self._turn.release()
        if ended_well:
            for mark in self._marks_of(submit):
                mark.unlink(missing_ok=True)

    # --- inside -------------------------------------------------------------------------------
    def _record(self) -> None:
        if self._directory is None:
            return
        for engine_id in self._crashed & self._lost.keys():
            for digest in self._lost.pop(engine_id):
                log.warning("request_suspected", request=digest, engine=engine_id)
                # A full disk must not bring down a worker, too.
                with contextlib.suppress(OSError):
                    self._directory.mkdir(mode=0o700, exist_ok=True)
                    (self._directory / f"{digest}.{engine_id}").touch(mode=0o600)

    def _marks_of(self, submit: Submit) -> list[Path]:
        """One file for each engine that died on it; older ones are removed."""
        if self._directory is None:
            return []
        try:
            found = list(self._directory.iterdir())
        except OSError:  # nothing was ever recorded
            return []
        digest = digest_of(submit) if found else ""
        marks = []
        for mark in found:
            with contextlib.suppress(OSError):  # a sibling may have removed it
                if self._clock() - mark.stat().st_mtime > MEMORY_SECONDS:
                    mark.unlink(missing_ok=True)
                elif mark.name.startswith(digest):
                    marks.append(mark)
        return marks


def poisonous(num_crashes: int) -> PoisonousRequest:
    return PoisonousRequest(
        f"The engine died {num_crashes} times while it answered this request; it is not tried "
        f"again for {MEMORY_SECONDS / 60:.0f} minutes. Change it, or ask an operator to look."
    )


def digest_of(submit: Submit) -> str:
    """The same for two requests that ask the same of an engine in the same caller's name."""
    same = msgspec.structs.replace(
        submit, id=0, request_id="", first_token_seconds=None, deadline_seconds=None
    )
    return blake2b(msgspec.msgpack.encode(same), digest_size=16).hexdigest()
