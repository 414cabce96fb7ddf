"""What a check-up says of one thing, and how it asks the machine's own tools."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from enum import StrEnum

_SECONDS = 10.0


class Verdict(StrEnum):
    FINE = "fine"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """`mend` is the command, or the setting, that puts it right."""

    about: str
    verdict: Verdict
    fact: str
    mend: str = ""


def ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """A tool's result; None where there is no such program, or it takes too long."""
    try:
        return subprocess.run(  # noqa: S603  commands of this package, no shell
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
