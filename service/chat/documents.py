"""A conversation as a file: what `export` writes and `import` reads."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec

from service.chat.archive import Exported
from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState, KeptMessage
from service.domain.errors import InvalidRequest

FORMAT, VERSION = "parley.conversation", 1
STATUSES = {
    AnswerState.COMPLETE: "completed",
    AnswerState.CUT: "incomplete",
    AnswerState.WRITING: "in_progress",
}
_STATES = {word: state for state, word in STATUSES.items()}


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "tool"]
    content: str
    reasoning: str = ""
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    created_at: float | None = None


class _Document(msgspec.Struct):
    format: Literal["parley.conversation"]
    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    messages: list[_Message]
    title: str = ""


def to_document(exported: Exported) -> dict[str, Any]:
    """A conversation for JSON; times in seconds since 1970."""
    summary = exported.summary
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": summary.id,
        "title": summary.title,
        "created_at": summary.created_at,
        "updated_at": summary.updated_at,
        "messages": [
            {
                "role": kept.message.role.value,
                "content": kept.message.content,
                "reasoning": kept.message.reasoning,
                "status": STATUSES[kept.state],
                "created_at": kept.created_at,
            }
            for kept in exported.messages
        ],
    }


def from_document(document: object) -> tuple[str, list[KeptMessage]]:
    """Title and messages of what `to_document` made; turns are not counted yet. Raises
    `InvalidRequest`."""
    try:
        read = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"This is no conversation that was exported: {error}.") from error
    now = time.time()
    return read.title, [_to_kept(message, now) for message in read.messages]


def _to_kept(message: _Message, now: float) -> KeptMessage:
    said = Message(Role(message.role), message.content, reasoning=message.reasoning)
    at = now if message.created_at is None else message.created_at
    return KeptMessage(0, 0, said, _STATES[message.status], at)
