"""What an engine tells its supervisor: JSON lines on an inherited descriptor."""

from __future__ import annotations

import contextlib
import json
import os


class StatusPipe:
    """Writes lines; never blocks. Nobody reads where the supervisor is gone or there was none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._progress = -1.0
        if descriptor is not None:
            os.set_blocking(descriptor, False)

    def progress(self, value: float) -> None:
        """The share of the model that is loaded, 0 to 1; told in steps of one percent."""
        if value < 1 and value - self._progress < 0.01:
            return
        self._progress = value
        self._write({"event": "progress", "value": round(value, 4)})

    def calibrating(self) -> None:
        """The model is loaded, and how it is best computed is being measured."""
        self._write({"event": "calibrating"})

    def ready(
        self, load_seconds: float, notice: str | None = None, degraded: str | None = None
    ) -> None:
        """It answers. `notice`: what memory did not allow; `degraded`: what was given up after
        the engine had died of more; each one sentence."""
        facts = {"event": "ready", "load_seconds": round(load_seconds, 3)}
        told = {"notice": notice, "degraded": degraded}
        self._write(facts | {name: text for name, text in told.items() if text is not None})

    def failed(self, reason: str) -> None:
        """The model cannot be loaded, in one sentence."""
        self._write({"event": "failed", "reason": reason})

    def heartbeat(self, steps: int, running: int, waiting: int, step_seconds: float) -> None:
        """`step_seconds`: how long the engine has been in its present step; 0 when idle."""
        self._write(
            {
                "event": "heartbeat",
                "steps": steps,
                "running": running,
                "waiting": waiting,
                "step_seconds": round(step_seconds, 3),
            }
        )

    def _write(self, facts: dict[str, object]) -> None:
        if self._descriptor is None:
            return
        line = json.dumps(facts, separators=(",", ":")).encode() + b"\n"
        # A reader that is gone, or too slow for a line a second: there is nobody to tell.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._descriptor, line)
