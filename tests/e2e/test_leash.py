"""No process of the service outlives those above it."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.parley import running_parley
from tests.e2e.processes import workers_of
from tests.supervisor.service import processes_of

pytestmark = [pytest.mark.services, pytest.mark.model]


def test_workers_end_when_all_above_them_are_killed_at_once(tmp_path: Path) -> None:
    with running_parley(tmp_path, "--model", "pocket") as service:
        service.wait_healthy()
        workers = workers_of(service)
        assert workers
        watched = [os.pidfd_open(pid) for pid in workers]
        above = set(processes_of(service.process.pid)) - set(workers)
        for pid in (service.process.pid, *above):
            with suppress(ProcessLookupError):  # it goes with the one above it
                os.kill(pid, signal.SIGKILL)
        service.process.wait(60)
        for fd in watched:
            assert select.select([fd], [], [], 60)[0]
            os.close(fd)
