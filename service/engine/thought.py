"""A thought may go on for so many tokens; then its end is written for the model."""

from __future__ import annotations

from service.domain.chat import PromptPiece
from service.engine.runner import Spelling
from service.ipc.messages import Submit


class Thought:
    """One answer's thought. Asked before each token, and told of each. Engine thread only.

    It is watched for its end as text, in whatever tokens the model writes that. An answer that
    begins without `start` has no thought; an empty `start` says that the prompt began it.
    """

    __slots__ = ("_budget", "_closing", "_end", "_is_closed", "_start", "_text")

    def __init__(self, budget: int, start: str, end: str, closing: list[int]) -> None:
        self._budget = budget
        self._start = start.encode()
        self._end = end.encode()
        self._closing = closing[::-1]
        self._text = b""
        self._is_closed = not closing

    def next(self) -> int | None:
        """The token that has to come now, if it is not for the model to say."""
        if self._is_closed or self._start or self._budget > 0:
            return None
        token_id = self._closing.pop()
        self._is_closed = not self._closing
        return token_id

    def read(self, piece: bytes) -> None:
        """This came next."""
        if self._is_closed:
            return
        self._budget -= 1
        self._text += piece
        if self._start:
            self._begin()
        elif self._budget >= 0:
            self._is_closed = self._end in self._text
            self._text = self._text[-len(self._end) :]

    def _begin(self) -> None:
        begun = self._text.lstrip()
        if begun.startswith(self._start):
            self._text, self._start = begun[len(self._start) :], b""
        elif not self._start.startswith(begun):
            self._is_closed = True


def create_thought(submit: Submit, spelling: Spelling) -> Thought | None:
    """None where a thought may take as long as it likes."""
    if submit.reasoning_budget is None or not submit.reasoning_end:
        return None
    text = f"\n{submit.reasoning_end}\n\n"
    closing = spelling.content((PromptPiece(text, trusted=True),))
    return Thought(submit.reasoning_budget, submit.reasoning_start, submit.reasoning_end, closing)
