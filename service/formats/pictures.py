"""Pictures among the words of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.domain.chat import Prompt, PromptPiece
from service.domain.errors import InvalidRequest
from service.domain.pictures import PICTURE_MARK, Picture


def with_pictures(prompt: Prompt, pictures: Sequence[Picture]) -> Prompt:
    """The rendered prompt with a piece for each picture where its mark is.

    Without pictures a mark is text like any other. Raises `InvalidRequest` where the template has
    left one out or told one twice, or where other text than messages spells the mark.
    """
    if not pictures:
        return prompt
    num_marks = sum(piece.text.count(PICTURE_MARK) for piece in prompt)
    if num_marks != len(pictures):
        raise InvalidRequest(
            f"The model's chat template tells of {num_marks} pictures where messages holds "
            f"{len(pictures)}.",
            param="messages",
        )
    return tuple(_placed(prompt, iter(pictures)))


def _placed(prompt: Prompt, pictures: Iterator[Picture]) -> Iterator[PromptPiece]:
    for piece in prompt:
        first, *others = piece.text.split(PICTURE_MARK)
        if first:
            yield PromptPiece(first, trusted=piece.trusted)
        for text in others:
            yield PromptPiece("", trusted=True, picture=next(pictures).digest)
            if text:
                yield PromptPiece(text, trusted=piece.trusted)
