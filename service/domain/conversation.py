"""The kept history of a chat."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from service.domain.chat import Message
from service.domain.errors import InvalidRequest

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class AnswerState(StrEnum):
    """`WRITING`: it still grows. `CUT`: it ended early, and what was written is kept."""

    WRITING = "writing"
    COMPLETE = "complete"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a person said and what was answered."""

    user: Message
    answer: Message
    state: AnswerState


@dataclass(frozen=True, slots=True)
class History:
    """The last ended exchanges of a conversation, oldest first, out of `num_exchanges` in all."""

    exchanges: tuple[Exchange, ...] = ()
    num_exchanges: int = 0


def valid_conversation_id(text: str) -> str:
    """`text` itself, when it can name a conversation. Raises `InvalidRequest`."""
    if not _ID.fullmatch(text):
        raise InvalidRequest(
            "session_id must be 1 to 128 characters out of A-Z, a-z, 0-9, '_' and '-'.",
            param="session_id",
        )
    return text
