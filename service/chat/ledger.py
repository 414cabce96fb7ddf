"""Where a conversation's tokens go."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.chat.archive import Archive
from service.chat.conversations import Conversations, Turn
from service.chat.generate import Chat
from service.domain.access import Principal
from service.domain.chat import PromptPiece
from service.domain.conversation import KeptMessage

MAX_MESSAGES = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """A message's own tokens, without the template's; `told` says whether the model will read it
    again at the next turn."""

    kept: KeptMessage
    num_tokens: int
    told: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """The window of the model that is served, and the last `MAX_MESSAGES` messages."""

    context_length: int
    entries: tuple[Entry, ...]

    @property
    def num_told_tokens(self) -> int:
        return sum(entry.num_tokens for entry in self.entries if entry.told)


async def open_ledger(
    chat: Chat,
    archive: Archive,
    conversations: Conversations,
    principal: Principal,
    conversation_id: str,
) -> Ledger:
    """Count a conversation's messages with the model that is served. Raises
    `ConversationNotFound`, `EngineUnavailable`."""
    exported = await archive.export(principal, conversation_id)
    turn = Turn(".", conversation_id, create_missing=False)
    told = {e.answer for e in await conversations.told(turn, principal)}
    client = chat.engines.current()
    last = exported.messages[-MAX_MESSAGES:]
    counts = await asyncio.gather(
        *(client.count_tokens((PromptPiece(kept.message.content, trusted=False),)) for kept in last)
    )
    turns_told = {kept.turn for kept in last if kept.message in told}
    entries = tuple(
        Entry(kept, count, kept.turn in turns_told)
        for kept, count in zip(last, counts, strict=True)
    )
    return Ledger(client.model.context_length, entries)
