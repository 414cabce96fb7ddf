"""What a conversation is made of, where that is more than texts: OpenAI's items, kept as they came.

A turn is a person's message with all that came with it (results of calls, say), and an answer with
all that belongs to it (calls, thoughts). Turns that other dialects keep have texts only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from service.chat.archive import Archive
from service.domain.access import Principal
from service.domain.conversation import KeptMessage, KeptTurn, valid_conversation_id
from service.domain.errors import ConversationLocked, ConversationNotFound, StoreUnavailable
from service.log import get_logger

HOLD_ON_SECONDS = 4.0
_PAGE = 500

log = get_logger(__name__)


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

    async def hold(self, principal_id: str, conversation_id: str, answer_id: str) -> bool | None:
        """Have a conversation wait for an answer, for some seconds; False where it waits for
        another one, None for an unknown conversation."""
        ...

    async def hold_on(self, principal_id: str, answer_id: str) -> None:
        """It is still being written; nothing happens where nobody waits for it any more."""
        ...

    async def let_go(self, principal_id: str, answer_id: str) -> None: ...


class Items:
    """A principal's conversations, message by message. Raises `ConversationNotFound`."""

    def __init__(
        self, archive: Archive, store: ItemStore, hold_on_seconds: float = HOLD_ON_SECONDS
    ) -> None:
        self._archive = archive
        self._store = store
        self._hold_on_seconds = hold_on_seconds

    async def messages(self, principal: Principal, conversation_id: str) -> list[KeptMessage]:
        """All of them, oldest first."""
        found: list[KeptMessage] = []
        while True:
            after = found[-1].key if found else 0
            page = await self._archive.messages(principal, conversation_id, _PAGE, after)
            found += page
            if len(page) < _PAGE:
                return found

    @asynccontextmanager
    async def held(
        self, principal: Principal, conversation_id: str, answer_id: str
    ) -> AsyncIterator[None]:
        """The conversation waits for this one answer in here, in all workers; where this one dies,
        it does for some seconds more. Raises `ConversationLocked` where it waits for another."""
        name = valid_conversation_id(conversation_id)
        is_mine = await self._store.hold(principal.id, name, answer_id)
        if is_mine is None:
            raise ConversationNotFound.named(name)
        if not is_mine:
            raise ConversationLocked.named(name)
        holding = asyncio.create_task(self._hold_on(principal, answer_id))
        try:
            yield
        finally:
            holding.cancel()
            try:
                await self._store.let_go(principal.id, answer_id)
            except StoreUnavailable as error:
                log.warning("conversation_still_waits", error=error.message)

    async def _hold_on(self, principal: Principal, answer_id: str) -> None:
        while True:
            await asyncio.sleep(self._hold_on_seconds)
            try:
                await self._store.hold_on(principal.id, answer_id)
            except StoreUnavailable as error:
                log.warning("conversation_not_held", error=error.message)

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
