"""An answer is read token by token, so that those that were thought can be counted exactly."""

from __future__ import annotations

from itertools import pairwise

from service.domain.events import ReasoningDelta, TextDelta, Usage
from service.formats.prepared import AnswerParser
from service.formats.stream_parser import Deltas
from service.ipc.messages import Delta


class Reading:
    """Feeds a parser with what an engine writes.

    A token was thought if it begins before the thought has ended, the tags around it included.
    """

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser
        self._num_read = 0
        self._num_thought = 0
        self._num_undecided = 0

    def feed(self, delta: Delta) -> Deltas:
        """What the new text means."""
        begins = delta.begins or (0,) * delta.num_tokens
        if begins == (0,):
            return self._token(delta.text)
        first, *others = *begins, len(delta.text)
        deltas = self._text(delta.text[:first])
        for begin, end in pairwise((first, *others)):
            deltas += self._token(delta.text[begin:end])
        return _joined(deltas)

    def num_thought(self, usage: Usage) -> int:
        """How many tokens were thought, of those that there are in the end."""
        unread = usage.completion_tokens - self._num_read
        return self._num_thought + (unread if self._parser.thinking else 0)

    def _token(self, text: str) -> Deltas:
        """The text of one token, as far as it is there."""
        self._num_read += 1
        if self._parser.thinking:
            self._num_thought += 1
        elif self._parser.thought is None:
            self._num_undecided += 1
        return self._text(text)

    def _text(self, text: str) -> Deltas:
        if not text:
            return []
        deltas = self._parser.feed(text)
        if self._parser.thought is not None:
            self._num_thought += self._num_undecided if self._parser.thought else 0
            self._num_undecided = 0
        return deltas


def _joined(deltas: Deltas) -> Deltas:
    """The same, with neighbours of one kind in one."""
    joined: Deltas = []
    for delta in deltas:
        last = joined[-1] if joined else None
        if isinstance(delta, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(last.text + delta.text)
        elif isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(last.text + delta.text)
        else:
            joined.append(delta)
    return joined
