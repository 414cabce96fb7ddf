"""Chats that are kept: each turn goes on from what was said before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Self
from uuid import uuid4

from service.chat.detached import Detached
from service.chat.generate import Chat, Generation
from service.chat.keeper import AnswerKeeper, ConversationStore
from service.chat.preferences import Preferences
from service.domain.access import Principal
from service.domain.chat import ChatRequest, Message, Role
from service.domain.conversation import AnswerState, Exchange, History, valid_conversation_id
from service.domain.errors import (
    Conflict,
    ContextLengthExceeded,
    ConversationNotFound,
    InvalidRequest,
    PayloadTooLarge,
    StoreUnavailable,
)
from service.domain.events import Event, Failed, Finished, FinishReason, ReasoningDelta, TextDelta
from service.domain.sampling import Sampling
from service.log import get_logger

MAX_EXCHANGES = 512
FLUSH_SECONDS = 1.0
SETTLE_SECONDS = 3.0
TIDY_SECONDS = 60.0
_CUT_SHORT = (FinishReason.CANCELLED, FinishReason.SHUTDOWN, FinishReason.DEADLINE)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message to a conversation, and how to answer it.

    `conversation_id` None starts a new one. `create_missing` says whether an unknown id does, too.
    `history_exchanges` is how many of the last exchanges are told to the model at most; None is
    as many as fit. `model` None: the one that the principal has chosen, or everybody's. A
    `detached` answer goes on when whoever asked for it goes away. Raises `InvalidRequest`.
    """

    text: str
    conversation_id: str | None = None
    create_missing: bool = True
    history_exchanges: int | None = None
    system_prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    request_id: str = ""
    model: str | None = None
    detached: bool = False

    def __post_init__(self) -> None:
        if self.conversation_id is not None:
            valid_conversation_id(self.conversation_id)


class ConversationGeneration:
    """A turn being answered, and kept while it is.

    The same events as the generation inside. Before the last of them comes, the whole answer is
    in the store; one that is closed early is kept as far as it got.
    """

    def __init__(
        self, generation: Generation, keeper: AnswerKeeper, conversation_id: str, num_dropped: int
    ) -> None:
        self.model = generation.model
        self.prompt_tokens = generation.prompt_tokens
        self.conversation_id = conversation_id
        self.num_dropped_messages = num_dropped
        self._generation = generation
        self._keeper = keeper
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    def stop(self) -> None:
        """End it early; its last event still comes."""
        self._generation.stop()

    async def aclose(self) -> None:
        await self._generation.aclose()
        try:
            await self._keeper.finish(AnswerState.CUT)
        except StoreUnavailable as error:
            log.error("answer_not_stored", error=error.message)  # noqa: TRY400  a fact, no bug

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _read(self) -> AsyncIterator[Event]:
        async for event in self._generation:
            match event:
                case TextDelta(text=text):
                    self._keeper.add(text=text)
                case ReasoningDelta(text=text):
                    self._keeper.add(reasoning=text)
                case Failed():
                    await self.aclose()
                case Finished(reason=reason):
                    state = AnswerState.CUT if reason in _CUT_SHORT else AnswerState.COMPLETE
                    try:
                        await self._keeper.finish(state)
                    except StoreUnavailable as error:
                        yield Failed(error)
                        return
            yield event


class Conversations:
    """Answers turns of kept conversations. One per worker.

    Two turns of one conversation at once are answered side by side: they are kept in the order in
    which their answers began, and neither answer has read the other.
    """

    def __init__(
        self,
        chat: Chat,
        store: ConversationStore,
        flush_seconds: float = FLUSH_SECONDS,
        preferences: Preferences | None = None,
    ) -> None:
        self._chat = chat
        self._preferences = preferences
        self._detached: dict[asyncio.Task[None], Detached] = {}
        self._store = store
        self._flush_seconds = flush_seconds

    async def start(self, turn: Turn, principal: Principal) -> ConversationGeneration | Detached:
        """Returns once the engine has accepted and the turn is kept; every refusal is raised here,
        and leaves nothing behind."""
        conversation_id = turn.conversation_id or str(uuid4())
        turn = await self._with_model(turn, principal)
        history = await self._history(turn, principal)
        exchanges = await self._fitting(turn, history.exchanges)
        generation = await self._chat.start(to_request(turn, exchanges), principal)
        async with AsyncExitStack() as on_failure:
            on_failure.push_async_callback(generation.aclose)
            key = await self._store.add_turn(principal.id, conversation_id, turn.text)
            on_failure.pop_all()
        keeper = AnswerKeeper(self._store, key, self._flush_seconds, generation.stop)
        num_dropped = 2 * (history.num_exchanges - len(exchanges))
        kept = ConversationGeneration(generation, keeper, conversation_id, num_dropped)
        return self._detach(kept, principal) if turn.detached else kept

    async def resume(self, turn: Turn, principal: Principal) -> ConversationGeneration | Detached:
        """Go on with the last answer of a conversation where it ended: what is written is added to
        it. `turn` says how; its text does not count.

        Raises like `start`, `ConversationNotFound`, and `Conflict` while it is being written.
        """
        name = turn.conversation_id or ""
        last = await self._store.last_exchange(principal.id, name)
        if last is None:
            raise ConversationNotFound(f"There is no answer to go on with in `{name}`.")
        begun = last.exchange.answer
        turn = await self._with_model(replace(turn, text=last.exchange.user.content), principal)
        history = await self._history(turn, principal)
        earlier = history.exchanges[:-1] if begun.content else history.exchanges
        exchanges = await self._fitting(turn, earlier)
        request = replace(to_request(turn, exchanges), begun=begun.content)
        generation = await self._chat.start(request, principal)
        async with AsyncExitStack() as on_failure:
            on_failure.push_async_callback(generation.aclose)
            if not await self._store.reopen(last.key):
                raise Conflict(f"The last answer of `{name}` is being written just now.")
            on_failure.pop_all()
        keeper = AnswerKeeper(self._store, last.key, self._flush_seconds, generation.stop, begun)
        num_dropped = 2 * (len(earlier) - len(exchanges))
        kept = ConversationGeneration(generation, keeper, name, num_dropped)
        return self._detach(kept, principal) if turn.detached else kept

    async def tidy(self) -> None:
        """Until cancelled, have answers that a crash has cut count as such, also for the search."""
        while True:
            try:
                settled = await self._store.settle_abandoned()
            except StoreUnavailable as error:
                log.warning("answers_not_settled", error=error.message)
            else:
                if settled:
                    log.warning("answers_were_cut", num_answers=settled)
            await asyncio.sleep(TIDY_SECONDS)

    async def settle(self) -> None:
        """Returns when no detached answer is being written any more; those that take longer than a
        moment are cut. For a worker's end, after the engines'."""
        if self._detached:
            await asyncio.wait(self._detached, timeout=SETTLE_SECONDS)
        for task in list(self._detached):
            task.cancel()
        await asyncio.gather(*self._detached, return_exceptions=True)

    def stop_here(self, conversation_id: str, principal: Principal) -> None:
        """End at once the detached answers to a conversation that this worker writes; those of
        other workers hear of it from the store."""
        for detached in self._detached.values():
            if (detached.principal, detached.conversation_id) == (principal.id, conversation_id):
                detached.stop()

    def _detach(self, generation: ConversationGeneration, principal: Principal) -> Detached:
        detached = Detached(generation, principal.id)
        self._detached[detached.task] = detached
        detached.task.add_done_callback(self._detached.pop)
        return detached

    async def told(self, turn: Turn, principal: Principal) -> Sequence[Exchange]:
        """The exchanges that the model would be told with `turn`. Raises like `start`."""
        turn = await self._with_model(turn, principal)
        return await self._fitting(turn, (await self._history(turn, principal)).exchanges)

    async def clear(self, conversation_id: str, principal: Principal) -> None:
        """Forget the conversation. Raises `ConversationNotFound`."""
        if not await self._store.delete(principal.id, conversation_id):
            raise ConversationNotFound.named(conversation_id)

    async def list_ids(self, principal: Principal) -> list[str]:
        """The principal's conversations, the last used first."""
        return await self._store.list_ids(principal.id)

    async def _with_model(self, turn: Turn, principal: Principal) -> Turn:
        if turn.model is None and self._preferences is not None:
            turn = replace(
                turn, model=await self._preferences.model_for(principal, turn.conversation_id)
            )
        if turn.model is None:
            await self._chat.engines.bridged()
        return turn

    async def _history(self, turn: Turn, principal: Principal) -> History:
        if turn.conversation_id is None:
            return History()
        wanted = MAX_EXCHANGES if turn.history_exchanges is None else turn.history_exchanges
        room = (self._chat.settings.max_messages - 2) // 2
        history = await self._store.history(
            principal.id, turn.conversation_id, max(0, min(wanted, room))
        )
        if history is None and not turn.create_missing:
            raise ConversationNotFound.named(turn.conversation_id)
        return history or History()

    async def _fitting(self, turn: Turn, exchanges: Sequence[Exchange]) -> Sequence[Exchange]:
        """The most of the last exchanges that leave room for an answer: a quarter of the context,
        or `max_tokens` where that is less. May be none, whether or not that helps."""
        quarter = self._chat.serving(turn.model).model.context_length // 4
        room = min(turn.max_tokens or quarter, quarter)
        fewest, most = 0, len(exchanges)  # how many are left out
        candidate = 0  # mostly, nothing has to be
        while fewest < most:
            if await self._fits(to_request(turn, exchanges[candidate:]), room):
                most = candidate
            else:
                fewest = candidate + 1
            candidate = (fewest + most) // 2
        return exchanges[most:]

    async def _fits(self, request: ChatRequest, room: int) -> bool:
        """Whether the request, which has a history, fits; too long to be read is too long, too."""
        try:
            return await self._chat.fits(request, room)
        except (ContextLengthExceeded, InvalidRequest, PayloadTooLarge):
            return False


def to_request(turn: Turn, exchanges: Sequence[Exchange]) -> ChatRequest:
    """The turn behind its history, as a chat."""
    system = [Message(Role.SYSTEM, turn.system_prompt)] if turn.system_prompt else []
    history = chain.from_iterable((e.user, e.answer) for e in exchanges)
    return ChatRequest(
        messages=(*system, *history, Message(Role.USER, turn.text)),
        sampling=turn.sampling,
        max_tokens=turn.max_tokens,
        request_id=turn.request_id,
        model=turn.model,
    )
