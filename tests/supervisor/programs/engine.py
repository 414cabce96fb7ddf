"""A tiny engine for tests of the supervisor: its model file is JSON that says how to behave.

load_seconds, load_until (a file that it waits for), exit_code + reason (instead of serving),
die_once (a file that is made at the first death by SIGKILL-like exit), busy_seconds (how long it
has a request), drain_seconds (how long it takes to leave), silent (no heartbeats).
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
for name in ("id", "model-name", "model-path", "socket", "status-fd"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--mode", required=True)
arguments = parser.parse_args()
conduct = json.loads(Path(arguments.model_path).read_text())
state: dict[str, Any] = {"ready": False, "leave_at": None}


def report(**facts: object) -> None:
    os.write(int(arguments.status_fd), json.dumps(facts).encode() + b"\n")


def on_term(number: int, frame: object) -> None:
    if not state["ready"] or state["leave_at"] is not None:
        os._exit(0)
    state["leave_at"] = time.monotonic() + conduct.get("drain_seconds", 0)


signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGUSR1, on_term)
for step in range(4):
    time.sleep(conduct.get("load_seconds", 0.1) / 4)
    report(event="progress", value=(step + 1) / 4)
while "load_until" in conduct and not Path(conduct["load_until"]).exists():
    time.sleep(0.02)
if "exit_code" in conduct:
    if "reason" in conduct:
        report(event="failed", reason=conduct["reason"])
    sys.exit(conduct["exit_code"])
listener = socket.socket(socket.AF_UNIX)
listener.bind(arguments.socket)
listener.listen()
state["ready"] = True
ready_at = time.monotonic()
report(event="ready", load_seconds=conduct.get("load_seconds", 0.1))
while state["leave_at"] is None or time.monotonic() < state["leave_at"]:
    time.sleep(0.02)
    if not conduct.get("silent"):
        report(
            event="heartbeat",
            steps=1,
            running=int(time.monotonic() < ready_at + conduct.get("busy_seconds", 0)),
            waiting=0,
            step_seconds=conduct.get("step_seconds", 0),
        )
sys.exit(0)
