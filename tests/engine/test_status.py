from __future__ import annotations

import json
import os

from service.engine.status import StatusPipe


def test_each_report_is_one_line_of_json() -> None:
    reading, writing = os.pipe()
    status = StatusPipe(writing)
    for value in (0.43, 0.431, 0.432):
        status.progress(value)
    status.ready(1.2)
    status.heartbeat(5, 2, 1, 0.0125)
    status.failed("No such file.")
    os.close(writing)
    with os.fdopen(reading) as lines:
        reports = [json.loads(line) for line in lines]
    assert reports == [
        {"event": "progress", "value": 0.43},
        {"event": "ready", "load_seconds": 1.2},
        {"event": "heartbeat", "steps": 5, "running": 2, "waiting": 1, "step_seconds": 0.013},
        {"event": "failed", "reason": "No such file."},
    ]


def test_a_supervisor_that_does_not_read_holds_nobody_up() -> None:
    reading, writing = os.pipe()
    status = StatusPipe(writing)
    for _ in range(10_000):
        status.heartbeat(1, 0, 0, 0.0)
    os.close(reading)
    status.heartbeat(2, 0, 0, 0.0)
    os.close(writing)


def test_without_a_supervisor_there_is_nothing_to_write_to() -> None:
    StatusPipe(None).ready(1.0)
