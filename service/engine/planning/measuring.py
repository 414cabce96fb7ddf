"""Calibration in a process of its own, which takes the memory that it needed with it.

`python -m service.engine.planning.measuring` reads one JSON line of what to measure, and writes one
of what was found. It ends as soon as nobody holds the other end of its standard input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service import log
from service.engine import library
from service.engine.planning import backends, calibrate
from service.engine.planning.calibrate import Calibration, Line
from service.engine.planning.loading import load_model
from service.engine.planning.memory import Sizes
from service.engine.planning.tuning import Tuning
from service.settings import EngineSettings, load_settings

_log = log.get_logger(__name__)


def measure_apart(path: Path, settings: EngineSettings, sizes: Sizes) -> Calibration | None:
    """As `calibrate.measure`, before the model is loaded here; None where the process came to
    nothing, which is logged."""
    wanted = {
        "path": str(path),
        "settings": settings.model_dump(mode="json"),
        "sizes": asdict(sizes),
    }
    command = [sys.executable, "-P", "-m", __name__]
    # Unbuffered: what a child that has gone did not take is not tried again at the end.
    with subprocess.Popen(  # noqa: S603  # our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("a child without pipes")
        try:
            child.stdin.write(json.dumps(wanted).encode() + b"\n")
            said = child.stdout.read()
        except BrokenPipeError:
            said = b""
        returncode = child.wait()
    if returncode == 0 and said:
        return to_calibration(json.loads(said))
    ended = f"exit code {returncode}"
    if returncode < 0:
        ended = signal.Signals(-returncode).name
    _log.warning("calibration_failed", reason=f"Its process ended with {ended}.")
    return None


def to_calibration(facts: dict[str, Any]) -> Calibration:
    """From `asdict`'s JSON values. Raises `KeyError` or `TypeError` for anything else."""
    table = tuple(Line(**line) for line in facts.pop("table"))
    return Calibration(Tuning(**facts.pop("tuning")), table, **facts)


def _watch_for_the_end() -> None:
    # Not through `sys.stdin`: at the end the interpreter wants its lock, which this would hold.
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> int:
    """Measure what standard input names."""
    wanted = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_watch_for_the_end, name="leash", daemon=True).start()
    log.configure(load_settings().log, role="calibration")
    library.start()
    backends.load()
    settings = EngineSettings(**wanted["settings"])
    model = load_model(Path(wanted["path"]), settings, lambda _share: None)
    try:
        found = calibrate.measure(model, settings, Sizes(**wanted["sizes"]))
    finally:
        model.close()
    sys.stdout.write(json.dumps(asdict(found)))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
