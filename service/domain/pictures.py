"""Pictures in a chat: where each stands among the words, and where it is to be had."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.domain.errors import InvalidRequest

# Stands in a message's content where a picture does. Unicode keeps this code point for such
# inner uses: it is no character, and no text that is meant to be read has it.
PICTURE_MARK = "\ufdd0"


@dataclass(frozen=True, slots=True)
class Picture:
    """`source` is an `https:` or `data:` URL; `where` names its place in the request, for
    refusals. `data` is the file once it has been got, and `digest` tells it from all others."""

    source: str
    where: str = ""
    data: bytes = b""
    digest: str = ""


def with_marks(
    parts: Iterable[str | Picture], between: str = ""
) -> tuple[str, tuple[Picture, ...]]:
    """The parts as one text with a mark for each picture, and the pictures in their order."""
    told = list(parts)
    texts = [PICTURE_MARK if isinstance(part, Picture) else part for part in told]
    pictures = tuple(part for part in told if isinstance(part, Picture))
    return between.join(text for text in texts if text), pictures


def refuse_stray_marks(content: str, num_pictures: int) -> None:
    """Raises `InvalidRequest` for a text beside pictures that spells the mark itself."""
    if content.count(PICTURE_MARK) != num_pictures:
        raise InvalidRequest(
            "messages holds U+FDD0, which is no character; it can't stand beside pictures.",
            param="messages",
        )
