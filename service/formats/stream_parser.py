"""What the model's text means, while it is being written: thought, or answer."""

from __future__ import annotations

from service.domain.events import ReasoningDelta, TextDelta

START, END = "<think>", "</think>"
Piece = tuple[bool, str]


class TagSplitter:
    """Split streamed text at a pair of tags, wherever the chunks happen to break.

    A piece is `(inside, text)`. Text that might still grow into a tag is held back until the
    next `feed`, or until `finish` says there is no more.
    """

    def __init__(self, start: str, end: str, *, inside: bool = False) -> None:
        self.tags = {False: start, True: end}
        self.inside = inside
        self.held = ""

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        self.held += text
        while (at := self.held.find(self.tags[self.inside])) >= 0:
            pieces += self._release(at)
            self.held = self.held.removeprefix(self.tags[self.inside])
            self.inside = not self.inside
        return pieces + self._release(len(self.held) - self._ambiguous())

    def finish(self) -> list[Piece]:
        return self._release(len(self.held))

    def _release(self, length: int) -> list[Piece]:
        text, self.held = self.held[:length], self.held[length:]
        return [(self.inside, text)] if text else []

    def _ambiguous(self) -> int:
        """Length of the longest held suffix that could be the beginning of the tag."""
        tag = self.tags[self.inside]
        return next((n for n in range(len(tag) - 1, 0, -1) if self.held.endswith(tag[:n])), 0)


class StreamParser:
    """Text in, deltas out. `prompt` is the rendered prompt, which may have opened a thought."""

    def __init__(self, prompt: str) -> None:
        thinking = prompt.rstrip().endswith(START)
        self._splitter = TagSplitter(START, END, inside=thinking)
        self._at_start = {True: True, False: thinking}  # line ends to drop, inside and outside

    def feed(self, text: str) -> list[TextDelta | ReasoningDelta]:
        return self._to_deltas(self._splitter.feed(text))

    def finish(self) -> list[TextDelta | ReasoningDelta]:
        return self._to_deltas(self._splitter.finish())

    def _to_deltas(self, pieces: list[Piece]) -> list[TextDelta | ReasoningDelta]:
        deltas: list[TextDelta | ReasoningDelta] = []
        for inside, piece in pieces:
            if inside:
                self._at_start[False] = True  # what follows the thought begins behind line ends
            text = piece.lstrip("\n") if self._at_start[inside] else piece
            if text:
                self._at_start[inside] = False
                deltas.append(ReasoningDelta(text) if inside else TextDelta(text))
        return deltas
