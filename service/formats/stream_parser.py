"""What the model's text means, while it is being written: thought, answer, or call of a tool."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from service.domain.events import ReasoningDelta, TextDelta, ToolCallDelta
from service.formats.call_parser import CallParser

Deltas = list[TextDelta | ReasoningDelta | ToolCallDelta]


class Tags(NamedTuple):
    """What a thought stands between."""

    start: str
    end: str


# Those that models write as text; the first is assumed where a template mentions none.
TAGS = (
    Tags("<think>", "</think>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<thinking>", "</thinking>"),
)


class _State(Enum):
    UNDECIDED = 0
    THINKING = 1
    THOUGHT = 2  # behind the thought, before the answer
    ANSWERING = 3


class StreamParser:
    """Text in, deltas out.

    A thought can only be the first thing in an answer, or be begun by the prompt (`inside`); a
    tag later on is something that the model talks about. Line ends around a thought are dropped.
    `calls` finds the calls in the answer; without it there are none.
    """

    def __init__(
        self, tags: Tags = TAGS[0], *, inside: bool = False, calls: CallParser | None = None
    ) -> None:
        self._tags = tags
        self._calls = calls
        self._state = _State.THINKING if inside else _State.UNDECIDED
        self._held = ""
        self._thought_anything = False
        self.thought: bool | None = None
        """Whether any of what was fed last belongs to the thought; None: that can't be said."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next belongs to a thought, as far as is known."""
        return self._state is _State.THINKING

    @property
    def num_calls(self) -> int:
        """How many calls there were so far."""
        return self._calls.num_calls if self._calls else 0

    def feed(self, text: str) -> Deltas:
        self.thought = False
        if self._state is _State.ANSWERING:
            return self._answer(text)
        self._held += text
        deltas: Deltas = []
        if self._state is _State.UNDECIDED:
            deltas += self._decide()
        if self._state is _State.THINKING:
            self.thought = True
            deltas += self._think()
        elif self._state is _State.UNDECIDED:
            self.thought = None
        if self._state is _State.THOUGHT:
            deltas += self._begin_answer()
        return deltas

    def finish(self) -> Deltas:
        """What was held back, now that there is no more."""
        rest, self._held = self._held, ""
        if self._state is _State.THINKING:
            return self._thought(rest.rstrip("\n"))
        deltas = [] if self._state is _State.THOUGHT else self._answer(rest)
        return [*deltas, *self._calls.finish()] if self._calls else deltas

    def _decide(self) -> Deltas:
        begun = self._held.lstrip()
        if self._tags.start.startswith(begun) and begun != self._tags.start:
            return []  # it may still become the tag
        if begun.startswith(self._tags.start):
            self._state, self._held = _State.THINKING, begun.removeprefix(self._tags.start)
            return []
        return self._release_answer()

    def _think(self) -> Deltas:
        thought, end, behind = self._held.partition(self._tags.end)
        if end:
            self._state, self._held = _State.THOUGHT, behind
            return self._thought(thought.rstrip("\n"))
        # Hold back line ends, which may be the last, and what may become the tag.
        tag = self._tags.end
        cut = next((n for n in range(len(tag) - 1, 0, -1) if thought.endswith(tag[:n])), 0)
        certain = thought[: len(thought) - cut].rstrip("\n")
        self._held = thought[len(certain) :]
        return self._thought(certain)

    def _thought(self, text: str) -> Deltas:
        if not self._thought_anything:
            text = text.lstrip("\n")
        if not text:
            return []
        self._thought_anything = True
        return [ReasoningDelta(text)]

    def _begin_answer(self) -> Deltas:
        self._held = self._held.lstrip("\n")
        return self._release_answer() if self._held else []

    def _release_answer(self) -> Deltas:
        self._state = _State.ANSWERING
        text, self._held = self._held, ""
        return self._answer(text)

    def _answer(self, text: str) -> Deltas:
        if self._calls is not None:
            return [*self._calls.feed(text)]
        return [TextDelta(text)] if text else []
