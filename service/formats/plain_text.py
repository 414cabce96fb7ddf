"""Text without a meaning beyond itself: no thoughts, no calls."""

from __future__ import annotations

from service.domain.events import TextDelta
from service.formats.stream_parser import Deltas, StreamParser


class PlainText(StreamParser):
    """A parser for answers to no template: what was written is what is read."""

    def feed(self, text: str) -> Deltas:
        return [TextDelta(text)] if text else []

    def finish(self) -> Deltas:
        return []
