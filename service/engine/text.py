"""From token bytes to text that is certain: whole characters, and no part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """One answer's text. What is uncertain waits for the next `feed`, or for `finish`.

    Bytes of a character that is not complete yet are held back; invalid bytes become U+FFFD. The
    longest end of the text that may still grow into a stop string is held back too. Of several
    stop strings the one that is complete first wins, so that the outcome does not depend on where
    the tokens' borders happen to be. A stop string is never part of what comes out, and nothing
    comes out after it.
    """

    __slots__ = (
        "_decoder",
        "_first_letters",
        "_held",
        "_longest",
        "_stops",
        "num_decoded",
        "stopped_by",
    )

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stops)
        self._first_letters = frozenset(stop[0] for stop in self._stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped_by: str | None = None
        self.num_decoded = 0
        """How many characters there were so far, those that are held back included."""

    def feed(self, data: bytes) -> str:
        """The text that has become certain with `data`."""
        text = self._decoder.decode(data)
        self.num_decoded += len(text)
        if not self._held and self._first_letters.isdisjoint(text):
            return text if self.stopped_by is None else ""
        return self._release(text, keep_uncertain=True)

    def finish(self) -> str:
        """The rest, when no more bytes will come."""
        return self._release(self._decoder.decode(b"", final=True), keep_uncertain=False)

    def _release(self, text: str, *, keep_uncertain: bool) -> str:
        if self.stopped_by is not None:
            return ""
        text = self._held + text
        match = self._first_match(text)
        if match is not None:
            start, self.stopped_by = match
            self._held = ""
            return text[:start]
        end = self._certain_length(text) if keep_uncertain else len(text)
        self._held = text[end:]
        return text[:end]

    def _first_match(self, text: str) -> tuple[int, str] | None:
        """Where the stop string that is complete first begins; the longest, where two end."""
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if not found:
            return None
        _, start, stop = min(found)
        return start, stop

    def _certain_length(self, text: str) -> int:
        """Length of `text` without the longest end that may be the beginning of a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._first_letters:
                tail = text[start:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return start
        return len(text)
