"""The model that the service was last told to serve, kept for its next start.

Standard library only, because the supervisor writes it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Choice:
    """A model by `name`, where it can be had (`source`, or a file's `path`), and the model that the
    settings named when it was chosen."""

    configured: str
    name: str
    source: str = ""
    path: str = ""


def keep_choice(file: Path, choice: Choice) -> None:
    """Write it, whole or not at all. Raises `OSError`."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    facts = {name: getattr(choice, name) for name in Choice.__slots__}
    fresh.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    fresh.replace(file)


def read_choice(file: Path, configured: str) -> Choice | None:
    """What was chosen while `configured` was what the settings named; None where nothing was, or
    the settings name another model since."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        choice = Choice(**{name: str(facts[name]) for name in Choice.__slots__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return choice if choice.configured == configured else None
