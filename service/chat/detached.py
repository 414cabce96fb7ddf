"""An answer that goes on when whoever asked for it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

from service.domain.events import Event, Failed, Finished
from service.log import get_logger

if TYPE_CHECKING:
    from service.chat.conversations import ConversationGeneration

log = get_logger(__name__)


class Detached:
    """The events of a kept generation, which a task of its own reads to the end.

    Closing this ends the listening only. The answer ends by itself, where somebody stops it, or
    with the worker.
    """

    def __init__(self, generation: ConversationGeneration, principal: str) -> None:
        self.principal = principal
        self.model = generation.model
        self.prompt_tokens = generation.prompt_tokens
        self.conversation_id = generation.conversation_id
        self.num_dropped_messages = generation.num_dropped_messages
        self._generation = generation
        self._unread: asyncio.Queue[Event] | None = asyncio.Queue()
        self.task = asyncio.create_task(self._read(), name="detached-answer")

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._unread is not None:
            event = await self._unread.get()
            yield event
            if isinstance(event, Finished | Failed):
                return

    def stop(self) -> None:
        """End it early; its last event still comes."""
        self._generation.stop()

    async def aclose(self) -> None:
        """Nobody listens any more."""
        if not self.task.done():
            log.info("answer_goes_on_alone", conversation=self.conversation_id)
        self._unread = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _read(self) -> None:
        async with self._generation:
            async for event in self._generation:
                if self._unread is not None:
                    self._unread.put_nowait(event)
