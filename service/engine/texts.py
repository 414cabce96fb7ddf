"""Questions about text that need the model's vocabulary and nothing else of it."""

from __future__ import annotations

from service.domain.errors import InvalidRequest, ServiceError
from service.engine.inbox import refusal
from service.engine.runner import Spelling
from service.engine.seen import Sight, looking
from service.ipc.messages import (
    Counted,
    CountTokens,
    Detokenize,
    Detokenized,
    Frame,
    Tokenize,
    Tokenized,
)

QuestionOfText = CountTokens | Tokenize | Detokenize


class Texts:
    """Answers in the caller's thread, which needs a large stack (see tokenizer.py)."""

    def __init__(self, spelling: Spelling, sight: Sight | None = None) -> None:
        self._spelling = spelling
        self._sight = sight

    def answer(self, frame: QuestionOfText) -> Frame:
        """The answer, or the refusal."""
        try:
            match frame:
                case CountTokens():
                    return Counted(frame.id, self._count(frame))
                case Tokenize():
                    return self._tokenize(frame)
                case Detokenize():
                    return self._detokenize(frame)
        except ServiceError as error:
            return refusal(frame.id, error)

    def _count(self, frame: CountTokens) -> int:
        prompt = frame.prompt
        if frame.pictures:
            prompt, _ = looking(self._sight).look(prompt, frame.pictures)
        return len(self._spelling.tokenize(prompt))

    def _tokenize(self, frame: Tokenize) -> Tokenized:
        token_ids = self._spelling.content(frame.prompt)
        if frame.add_special:
            before, after = self._spelling.around()
            token_ids = [*before, *token_ids, *after]
        pieces = tuple(self._spelling.spell(token_ids)) if frame.with_pieces else ()
        return Tokenized(frame.id, tuple(token_ids), pieces)

    def _detokenize(self, frame: Detokenize) -> Detokenized:
        size = self._spelling.size
        wrong = next((i for i in frame.token_ids if not 0 <= i < size), None)
        if wrong is not None:
            raise InvalidRequest(f"{wrong} is no token id; those are 0 to {size - 1}.")
        data = b"".join(self._spelling.spell(frame.token_ids))
        return Detokenized(frame.id, data.decode("utf-8", "replace"))
