"""The supervisor's own log lines, shaped like everybody else's, from the standard library."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Journal:
    """One line per event on `stream`. `readable`: for a person, else JSON.

    An event may bring a sentence: a person reads that in place of event and facts.
    """

    readable: bool = False
    level: str = "info"
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def info(self, event: str, sentence: str | None = None, **facts: object) -> None:
        self._write("info", event, sentence, facts)

    def debug(self, event: str, sentence: str | None = None, **facts: object) -> None:
        self._write("debug", event, sentence, facts)

    def warning(self, event: str, sentence: str | None = None, **facts: object) -> None:
        self._write("warning", event, sentence, facts)

    def error(self, event: str, sentence: str | None = None, **facts: object) -> None:
        self._write("error", event, sentence, facts)

    def _write(
        self, level: str, event: str, sentence: str | None, facts: dict[str, object]
    ) -> None:
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        if self.readable:
            line = self._for_people(level, event, sentence, facts)
        else:
            line = self._for_machines(level, event, sentence, facts)
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except OSError:
            # The reader has gone (a closed terminal or pipe). Serving matters more than telling.
            return

    @staticmethod
    def _for_people(level: str, event: str, sentence: str | None, facts: dict[str, object]) -> str:
        mark = {"warning": "warning: ", "error": "error: "}.get(level, "")
        said = sentence or " ".join([event, *(f"{k}={v}" for k, v in facts.items())])
        return f"parley: {mark}{said}"

    @staticmethod
    def _for_machines(
        level: str, event: str, sentence: str | None, facts: dict[str, object]
    ) -> str:
        told = {"message": sentence} if sentence and level in ("warning", "error") else {}
        stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {
            **facts,
            **told,
            "event": event,
            "level": level,
            "timestamp": stamp,
            "role": "supervisor",
        }
        return json.dumps(line, default=str)
