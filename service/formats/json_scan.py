"""Where a JSON value ends in text that is still being written."""

from __future__ import annotations

import re

_IN_STRING = re.compile(r'["\\]')
_STRUCTURE = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[\s,\]}]")


class ValueScan:
    """One value, read from its first character on; nothing is parsed twice.

    What is not JSON is not noticed: only strings, brackets and separators are looked at. `done`
    once the value is complete; a number is only complete when something else follows it.
    """

    def __init__(self) -> None:
        self.done = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._scalar = False
        self._begun = False

    def read(self, text: str, start: int = 0) -> int:
        """How far the value goes in `text`, from `start` on: an index."""
        at = start
        while at < len(text) and not self.done:
            at = self._step(text, at)
        return at

    def _step(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        if self._in_string:
            match = _IN_STRING.search(text, at)
            if match is None:
                return len(text)
            self._escaped = match[0] == "\\"
            self._in_string = self._escaped
            self.done = not self._in_string and not self._depth
            return match.end()
        if not self._begun:
            self._begun = True
            self._scalar = text[at] not in '"{['
        if self._scalar:
            match = _SCALAR_END.search(text, at)
            self.done = match is not None
            return match.start() if match else len(text)
        match = _STRUCTURE.search(text, at)
        if match is None:
            return len(text)
        self._in_string = match[0] == '"'
        self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        self.done = not self._in_string and self._depth <= 0
        return match.end()
