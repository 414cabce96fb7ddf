"""What a conversation is made of, where that is more than texts: OpenAI's items, kept as they came.

A turn is a person's message with all that came with it (results of calls, say), and an answer with
all that belongs to it (calls, thoughts). Turns that other dialects keep have texts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.chat.archive import Archive
from service.domain.access import Principal
from service.domain.conversation import KeptMessage
from service.domain.errors import ConversationNotFound

_PAGE = 500


class ItemStore(Protocol):
    """Keeps messages with items. All methods raise `StoreUnavailable`."""

    async def append(
        self, principal_id: str, conversation_id: str, turns: Sequence[Sequence[KeptMessage]]
    ) -> bool:
        """Add turns behind all others, counted anew; False for an unknown conversation."""
        ...

    async def replace(self, principal_id: str, conversation_id: str, message: KeptMessage) -> None:
        """Change the text and the items of the message with this key."""
        ...

    async def describe(
        self, principal_id: str, conversation_id: str, metadata: dict[str, str]
    ) -> bool:
        """Replace a conversation's metadata; False for an unknown one."""
        ...


@dataclass(frozen=True, slots=True)
class KeptTurn:
    """What a conversation gets of an answer in it: the messages of one or more turns."""

    conversation_id: str
    turns: tuple[tuple[KeptMessage, ...], ...]


class Items:
    """A principal's conversations, message by message. Raises `ConversationNotFound`."""

    def __init__(self, archive: Archive, store: ItemStore) -> None:
        self._archive = archive
        self._store = store

    async def messages(self, principal: Principal, conversation_id: str) -> list[KeptMessage]:
        """All of them, oldest first."""
        found: list[KeptMessage] = []
        while True:
            after = found[-1].key if found else 0
            page = await self._archive.messages(principal, conversation_id, _PAGE, after)
            found += page
            if len(page) < _PAGE:
                return found

    async def append(self, principal: Principal, turn: KeptTurn) -> None:
        if not await self._store.append(principal.id, turn.conversation_id, turn.turns):
            raise ConversationNotFound.named(turn.conversation_id)

    async def replace(
        self, principal: Principal, conversation_id: str, message: KeptMessage
    ) -> None:
        await self._store.replace(principal.id, conversation_id, message)

    async def describe(
        self, principal: Principal, conversation_id: str, metadata: dict[str, str]
    ) -> None:
        """Replace the conversation's metadata."""
        if not await self._store.describe(principal.id, conversation_id, metadata):
            raise ConversationNotFound.named(conversation_id)
