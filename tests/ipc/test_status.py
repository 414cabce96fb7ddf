"""The supervisor's lines."""

from __future__ import annotations

import pytest

from service.ipc.status import (
    DownloadStatus,
    EngineState,
    EngineStatus,
    Phase,
    ServiceStatus,
    from_line,
    to_line,
)

FULL = ServiceStatus(
    phase=Phase.SERVING,
    wanted_model="qwen",
    current=2,
    engines=(
        EngineStatus(1, "pocket", "/run/engine-1.sock", EngineState.DRAINING, 1.0),
        EngineStatus(2, "qwen", "/run/engine-2.sock", EngineState.READY, 1.0),
    ),
    download=DownloadStatus("qwen", 5, 10),
    notice="A line\nbreak stays in its line.",
    num_engine_restarts=3,
    retry_after_seconds=2.5,
    drain_deadline_unix=1.7e9,
)


@pytest.mark.parametrize("status", [ServiceStatus(), FULL])
def test_a_status_is_one_line_and_comes_back_as_it_was(status: ServiceStatus) -> None:
    line = to_line(status)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert from_line(line) == status


def test_the_current_engine_is_the_one_with_its_id() -> None:
    assert FULL.current_engine == FULL.engines[1]
    assert ServiceStatus(current=7).current_engine is None


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"phase": "odd"}', b"not json\n"])
def test_anything_else_is_an_error_that_the_reader_knows(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_line(line)
