"""`python -m service.models --models-dir DIR pull NAME`: one download in a process of its own.

The supervisor runs it so, because a download may hang, and a process can be ended at any moment:
what has arrived is continued by the next attempt. Progress goes to a file descriptor as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from service.core_files import forbid_core_files
from service.domain.errors import ServiceError
from service.models.download import Surroundings, fetch
from service.models.registry import resolve
from service.settings import load_settings

REPORT_SECONDS = 0.2  # between two lines of progress


class StatusLines:
    """Writes events to a descriptor, progress at most every `REPORT_SECONDS`."""

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.descriptor = descriptor
        self.clock = clock
        self.next_report = 0.0

    def progress(self, done: int, total: int) -> None:
        now = self.clock()
        if now >= self.next_report or done == total:
            self.next_report = now + REPORT_SECONDS if done else now
            self.write(event="progress", done=done, total=total)

    def write(self, **facts: str | int | bool) -> None:
        line = (json.dumps(facts) + "\n").encode()
        while line:
            line = line[os.write(self.descriptor, line) :]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the file is there, 1 when not. The last line says `done` or `failed`.

    `retryable` in a failure says whether the same attempt can succeed later without anybody
    changing anything here.
    """
    forbid_core_files()  # of a process that may hold the hub's token
    parser = argparse.ArgumentParser(prog="python -m service.models", description=__doc__)
    parser.add_argument("--models-dir", type=Path, required=True, help="where models are")
    verbs = parser.add_subparsers(required=True)
    pull = verbs.add_parser("pull", help="fetch a model's file")
    pull.add_argument("name", help="catalogue name or REPO:FILE")
    pull.add_argument("--status-fd", type=int, default=1, help="where JSON lines go; default 1")
    chosen = parser.parse_args(arguments)
    lines = StatusLines(chosen.status_fd)
    try:
        models_dir = chosen.models_dir
        around = Surroundings(hub_token=load_settings().model.hub_token)
        path = fetch(resolve(chosen.name, models_dir), models_dir, lines.progress, around)
        lines.write(event="done", path=str(path))
    except ServiceError as error:
        if chosen.status_fd == 1:  # else whoever reads the lines says it
            sys.stderr.write(error.message + "\n")
        retryable = error.retry_after_seconds is not None
        lines.write(event="failed", reason=error.message, retryable=retryable)
        return 1
    except BrokenPipeError:  # nobody is listening any more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
