"""A chat that is too long loses whole exchanges, the oldest first."""

from __future__ import annotations

import pytest

from service.chat.generate import Chat, collect
from service.chat.truncation import truncated
from service.domain.access import ANONYMOUS
from service.domain.chat import ChatRequest, Message, Role, Tool, ToolCall
from service.domain.errors import ContextLengthExceeded, ModelNotFound
from service.settings import ChatSettings
from tests.fakes.engine import FakeEngine

SYSTEM = Message(Role.SYSTEM, "Be kind.")
CALL = Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "look", "{}"),))
EXCHANGES = [
    (Message(Role.USER, "one"), Message(Role.ASSISTANT, "1")),
    (Message(Role.USER, "two"), CALL, Message(Role.TOOL, "2", tool_call_id="1")),
    (Message(Role.USER, "three"), Message(Role.USER, "and"), Message(Role.ASSISTANT, "3")),
    (Message(Role.USER, "four"),),
]
WHOLE = ChatRequest((SYSTEM, *(message for exchange in EXCHANGES for message in exchange)))


@pytest.mark.parametrize("num_kept", [1, 2, 3, 4])
async def test_as_many_exchanges_as_fit_are_kept_and_always_the_system_message(
    num_kept: int,
) -> None:
    kept = [message for exchange in EXCHANGES[-num_kept:] for message in exchange]

    async def fits(request: ChatRequest) -> bool:
        return len(request.messages) <= 1 + len(kept)

    assert (await truncated(WHOLE, fits)).messages == (SYSTEM, *kept)


async def test_the_last_exchange_stays_whether_or_not_it_fits() -> None:
    async def fits(request: ChatRequest) -> bool:
        return False

    assert (await truncated(WHOLE, fits)).messages == (SYSTEM, EXCHANGES[-1][0])


async def test_truncation_is_what_a_request_has_to_ask_for() -> None:
    chat = Chat(FakeEngine(), ChatSettings())
    turns = [Message(role, "word " * 50) for role in (Role.USER, Role.ASSISTANT)] * 8
    request = ChatRequest((SYSTEM, *turns, Message(Role.USER, "last")), tools=(Tool("look"),))
    with pytest.raises(ContextLengthExceeded):
        await chat.start(request, ANONYMOUS)
    willing = ChatRequest(request.messages, tools=request.tools, truncate=True)
    generation = await chat.start(willing, ANONYMOUS)
    assert generation.num_dropped_messages % 2 == 0
    assert 0 < generation.num_dropped_messages < 16
    await collect(generation)


async def test_names_are_aliases_only_where_the_operator_says_so() -> None:
    request = ChatRequest((Message(Role.USER, "Hi"),), model="gpt-4o-mini")
    with pytest.raises(ModelNotFound, match="`gpt-4o-mini` does not exist"):
        await Chat(FakeEngine(), ChatSettings()).start(request, ANONYMOUS)
    chat = Chat(FakeEngine(), ChatSettings(aliases="claude-*, gpt-*"))
    assert (await chat.start(request, ANONYMOUS)).model.name == "fake"
    other = ChatRequest(request.messages, model="mistral")
    with pytest.raises(ModelNotFound):
        await chat.start(other, ANONYMOUS)
