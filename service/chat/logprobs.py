"""Which tokens belong to the answer, of all that were written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.domain.events import ReasoningDelta, TextDelta, TokenLogprob, ToolCallDelta

Delta = TextDelta | ReasoningDelta | ToolCallDelta


class AnswerLogprobs:
    """Puts the log probabilities of tokens onto the text that the tokens became.

    Text may come later than its tokens. Those of thoughts, tool calls and what stands around
    them are dropped: a text's tokens are the last ones before it, as many as it has bytes for.
    """

    def __init__(self) -> None:
        self._waiting: list[TokenLogprob] = []

    def attach(
        self,
        deltas: Iterable[Delta],
        logprobs: Sequence[TokenLogprob] = (),
        *,
        thinking: bool = False,
    ) -> list[Delta]:
        """The deltas that came with `logprobs`, the first text among them with its tokens'."""
        self._waiting += logprobs
        result = list(deltas)
        if not self._waiting:
            return result
        texts = [delta for delta in result if isinstance(delta, TextDelta)]
        if texts:
            size = sum(len(text.text.encode("utf-8", "replace")) for text in texts)
            place = result.index(texts[0])
            result[place] = replace(texts[0], logprobs=self._last(size))
        if result or thinking:
            self._waiting.clear()
        return result

    def _last(self, num_bytes: int) -> tuple[TokenLogprob, ...]:
        start = len(self._waiting)
        while start > 0 and num_bytes > 0:
            start -= 1
            num_bytes -= len(self._waiting[start].chosen.text)
        return tuple(self._waiting[start:])
