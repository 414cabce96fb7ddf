"""The supervisor's end of its socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ipc.peers import SupervisorPeer


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[SupervisorPeer]:
    async with SupervisorPeer(tmp_path / "status.sock") as peer:
        yield peer
