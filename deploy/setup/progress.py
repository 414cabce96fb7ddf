"""How far a long step is, from what the build tools print, told to a terminal or to a log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

_STEPS = re.compile(r"^\s*\[\s*(\d+)/(\d+)\]")  # ninja
_PERCENT = re.compile(r"^\s*\[\s*(\d+)%\]")  # make


def fraction_of(line: str) -> float | None:
    """Return how far a build is, 0 to 1, when this line of its output tells; else None."""
    if steps := _STEPS.match(line):
        done, total = int(steps[1]), int(steps[2])
        return min(done / total, 1.0) if total else None
    if percent := _PERCENT.match(line):
        return min(int(percent[1]) / 100, 1.0)
    return None


@dataclass(slots=True)
class Progress:
    """One step's progress: a single updating line on a terminal, else a line every few percent."""

    title: str
    out: TextIO
    step_percent: int = 5
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _told: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._tell(0)

    def update(self, fraction: float) -> None:
        """Tell how far the step is; going back is ignored."""
        percent = int(fraction * 100)
        if self.out.isatty():
            self._tell(max(percent, self._told))
        elif percent >= self._told + self.step_percent:
            self._tell(percent - percent % self.step_percent)

    def finish(self) -> None:
        """Tell that the step is done."""
        self._tell(100)
        if self.out.isatty():
            self.out.write("\n")
            self.out.flush()

    def abandon(self) -> None:
        """Leave the line as it is, so that an error starts on one of its own."""
        if self.out.isatty():
            self.out.write("\n")
            self.out.flush()

    def _tell(self, percent: int) -> None:
        if percent == self._told and not self.out.isatty():
            return
        self._told = percent
        line = f"parley: {self.title} {percent:3d} %  {_minutes(self.clock() - self._began)}"
        self.out.write(f"\r\x1b[K{line}" if self.out.isatty() else f"{line}\n")
        self.out.flush()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
