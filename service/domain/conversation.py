"""The kept history of a chat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from service.domain.chat import Message, Role
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


@dataclass(frozen=True, slots=True)
class LastExchange:
    """The last exchange of a conversation; `key` is its answer's."""

    key: int
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation in a list; times in seconds since 1970. `metadata` is its owner's."""

    id: str
    title: str
    created_at: float
    updated_at: float
    num_turns: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message as it is kept; `turn` counts exchanges from 1. `key` grows with time.

    `items` is where it was more than text: a JSON list in the words of OpenAI's Responses.
    """

    key: int
    turn: int
    message: Message
    state: AnswerState
    created_at: float
    items: str | None = None


@dataclass(frozen=True, slots=True)
class KeptTurn:
    """What a conversation gets of an answer in it: the messages of one or more turns."""

    conversation_id: str
    turns: tuple[tuple[KeptMessage, ...], ...]


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A message that has the words; `snippet` is what stands around them."""

    conversation_id: str
    title: str
    turn: int
    role: Role
    snippet: str
    created_at: float


class ResponseState(StrEnum):
    """`WRITING`: it still grows. `ENDED`: its reply says how. `CANCELLED`: nobody wants it on.
    `LOST`: whoever wrote it has gone, and what was written so far is kept."""

    WRITING = "writing"
    ENDED = "ended"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """An answer that can be gone on from by its id: what was new in its request, and the reply,
    both JSON text in the words of the dialect that asked. `previous_id` is what it went on from."""

    id: str
    previous_id: str | None
    input: str
    reply: str
    state: ResponseState = ResponseState.ENDED


MAX_TITLE = 200


def valid_title(text: str) -> str:
    """`text` on one line. Raises `InvalidRequest` when it is empty or too long."""
    title = " ".join(text.split())
    if not 0 < len(title) <= MAX_TITLE:
        raise InvalidRequest(
            f"title has {len(title)} characters; 1 to {MAX_TITLE} are accepted.", param="title"
        )
    return title


def to_title(said: str) -> str:
    """What a conversation that begins so is called until somebody renames it."""
    return " ".join(said.split())[:80]


def valid_conversation_id(text: str) -> str:
    """`text` itself, when it can name a conversation. Raises `InvalidRequest`."""
    if not _ID.fullmatch(text):
        raise InvalidRequest(
            "session_id must be 1 to 128 characters out of A-Z, a-z, 0-9, '_' and '-'.",
            param="session_id",
        )
    return text
