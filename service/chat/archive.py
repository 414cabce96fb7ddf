"""What somebody has said and heard so far: looked through, put in order, taken along, forgotten."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from service.domain.access import Principal
from service.domain.chat import Message, Role
from service.domain.conversation import (
    AnswerState,
    ConversationSummary,
    KeptMessage,
    SearchHit,
    to_title,
    valid_conversation_id,
    valid_title,
)
from service.domain.errors import ConversationNotFound, InvalidRequest, StoreUnavailable
from service.log import get_logger

MAX_PAGE = 200
MAX_IMPORTED = 10_000
_PAGE = 500
_WORD = re.compile(r"\w+", re.UNICODE)
_MAX_WORDS = 16

log = get_logger(__name__)


class ArchiveStore(Protocol):
    """Conversations as a whole, each under its principal. All raise `StoreUnavailable`."""

    async def create(self, principal_id: str, conversation_id: str, title: str) -> bool: ...

    async def summaries(
        self, principal_id: str, most: int, before: float | None = None
    ) -> list[ConversationSummary]: ...

    async def summary(
        self, principal_id: str, conversation_id: str
    ) -> ConversationSummary | None: ...

    async def messages(
        self, principal_id: str, conversation_id: str, most: int, after: int = 0
    ) -> list[KeptMessage]: ...

    async def rename(self, principal_id: str, conversation_id: str, title: str) -> bool: ...

    async def stop(self, principal_id: str, conversation_id: str) -> int | None: ...

    async def fork(
        self, principal_id: str, conversation_id: str, new_id: str, last_turn: int | None
    ) -> bool: ...

    async def add_messages(
        self, principal_id: str, conversation_id: str, said: Sequence[KeptMessage]
    ) -> None: ...

    async def search(
        self, principal_id: str, words: Sequence[str], most: int
    ) -> list[SearchHit]: ...

    async def erase(self, principal_id: str) -> int: ...

    async def forget_unused(self, seconds: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Exported:
    """A whole conversation, to be taken along."""

    summary: ConversationSummary
    messages: tuple[KeptMessage, ...]


class Archive:
    """A principal's conversations. Those of another are as unknown as those that never were.

    Methods that name a conversation raise `ConversationNotFound` and `InvalidRequest`.
    """

    def __init__(
        self, store: ArchiveStore, new_id: Callable[[], str] = lambda: f"conv_{uuid4().hex}"
    ) -> None:
        self._store = store
        self._new_id = new_id

    async def create(self, principal: Principal, title: str = "") -> ConversationSummary:
        """An empty conversation under an id of its own."""
        name = self._new_id()
        await self._store.create(principal.id, name, valid_title(title) if title else "")
        return await self.summary(principal, name)

    async def summaries(
        self, principal: Principal, most: int, before: float | None = None
    ) -> list[ConversationSummary]:
        """A page, the last used first, of at most `MAX_PAGE`."""
        return await self._store.summaries(principal.id, min(most, MAX_PAGE), before)

    async def summary(self, principal: Principal, conversation_id: str) -> ConversationSummary:
        found = await self._store.summary(principal.id, valid_conversation_id(conversation_id))
        if found is None:
            raise ConversationNotFound.named(conversation_id)
        return found

    async def messages(
        self, principal: Principal, conversation_id: str, most: int = _PAGE, after: int = 0
    ) -> list[KeptMessage]:
        """Messages from behind the one with the key `after`, oldest first."""
        await self.summary(principal, conversation_id)
        return await self._store.messages(principal.id, conversation_id, most, after)

    async def rename(
        self, principal: Principal, conversation_id: str, title: str
    ) -> ConversationSummary:
        wanted = valid_title(title)
        if not await self._store.rename(
            principal.id, valid_conversation_id(conversation_id), wanted
        ):
            raise ConversationNotFound.named(conversation_id)
        return await self.summary(principal, conversation_id)

    async def stop(self, principal: Principal, conversation_id: str) -> int:
        """End the answers that are being written to it, wherever they were asked for; they end
        within about a second. Returns how many there were."""
        stopped = await self._store.stop(principal.id, valid_conversation_id(conversation_id))
        if stopped is None:
            raise ConversationNotFound.named(conversation_id)
        return stopped

    async def fork(
        self, principal: Principal, conversation_id: str, last_turn: int | None = None
    ) -> ConversationSummary:
        """A copy, up to turn `last_turn` or whole, that goes its own way."""
        source, name = valid_conversation_id(conversation_id), self._new_id()
        if not await self._store.fork(principal.id, source, name, last_turn):
            raise ConversationNotFound.named(conversation_id)
        return await self.summary(principal, name)

    async def search(self, principal: Principal, wanted: str, most: int) -> list[SearchHit]:
        """Messages that have all words of `wanted`, the newest first. Case and accents don't
        count, and the last word may be a beginning."""
        words = _WORD.findall(wanted)[:_MAX_WORDS]
        if not words:
            raise InvalidRequest(f"q is {wanted!r}; it must have a word to look for.", param="q")
        return await self._store.search(principal.id, words, min(most, MAX_PAGE))

    async def erase(self, principal: Principal) -> int:
        """Forget everything that the principal has said and heard; how many conversations."""
        return await self._store.erase(principal.id)

    async def export(self, principal: Principal, conversation_id: str) -> Exported:
        """All of one conversation."""
        summary = await self.summary(principal, conversation_id)
        pages = self._pages(principal, conversation_id)
        return Exported(summary, tuple([m async for page in pages for m in page]))

    async def bring(self, principal: Principal, title: str, said: Sequence[KeptMessage]) -> str:
        """Keep a conversation that comes from elsewhere, under a new id, which is returned.

        Its turns are counted anew: each message of a person begins one, and only exchanges are
        kept, as nothing else could be gone on from. Raises `InvalidRequest` where there is none.
        """
        turns = _to_turns(said)
        if not turns:
            raise InvalidRequest(
                "messages has no exchange; a user's message with an answer behind it is one.",
                param="messages",
            )
        name = self._new_id()
        called = to_title(title) or to_title(turns[0].message.content)
        await self._store.create(principal.id, name, called)
        await self._store.add_messages(principal.id, name, turns)
        return name

    async def forget_unused(self, days: float) -> None:
        """Forget, now and every hour until cancelled, what nobody has used for `days`."""
        while True:
            try:
                forgotten = await self._store.forget_unused(days * 86400)
            except StoreUnavailable as error:
                log.warning("conversations_not_forgotten", error=error.message)
            else:
                log.info("conversations_forgotten", num_conversations=forgotten)
            await asyncio.sleep(3600)

    async def _pages(
        self, principal: Principal, conversation_id: str
    ) -> AsyncIterator[list[KeptMessage]]:
        after = 0
        while page := await self._store.messages(principal.id, conversation_id, _PAGE, after):
            yield page
            after = page[-1].key


def to_markdown(exported: Exported) -> str:
    """A conversation to read: a heading, and each message below who said it."""
    names = {Role.USER: "You", Role.ASSISTANT: "Assistant"}
    title = exported.summary.title or exported.summary.id
    parts = [f"# {title}"]
    for kept in exported.messages:
        parts += [f"## {names.get(kept.message.role, kept.message.role.value)}"]
        parts += [kept.message.content or "*(nothing)*"]
    return "\n\n".join(parts) + "\n"


def _to_turns(said: Sequence[KeptMessage]) -> list[KeptMessage]:
    """The exchanges among messages, in order, their turns counted from 1."""
    if len(said) > MAX_IMPORTED:
        raise InvalidRequest(
            f"messages has {len(said)} entries; at most {MAX_IMPORTED} are accepted.",
            param="messages",
        )
    turns: list[KeptMessage] = []
    for asked, answered in itertools.pairwise(said):
        if (asked.message.role, answered.message.role) == (Role.USER, Role.ASSISTANT):
            turn = len(turns) // 2 + 1
            turns += [_as_turn(asked, turn), _as_turn(answered, turn)]
    return turns


def _as_turn(kept: KeptMessage, turn: int) -> KeptMessage:
    message = Message(kept.message.role, kept.message.content, reasoning=kept.message.reasoning)
    state = AnswerState.CUT if kept.state is AnswerState.WRITING else kept.state
    return KeptMessage(0, turn, message, state, kept.created_at)
