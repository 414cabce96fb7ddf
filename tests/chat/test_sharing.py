"""Only the operator's own system prompt is shared, and only to its last letter."""

from __future__ import annotations

import pytest

from service.chat.sharing import SharedBeginning
from service.domain.chat import ChatRequest, Message, PromptPiece, Role, Tool
from service.formats.template import ChatTemplate
from tests.fakes.runner import model_info

OPERATOR = "You are the museum's guide."
TOOL = Tool("look", "Looks.", '{"type": "object"}')


def chat(*messages: tuple[Role, str], tools: tuple[Tool, ...] = ()) -> ChatRequest:
    return ChatRequest(tuple(Message(role, content) for role, content in messages), tools=tools)


def shared(request: ChatRequest, system_prompt: str = OPERATOR) -> str:
    template = ChatTemplate(model_info())
    prompt = template.render(request.messages, request.tools)
    text = "".join(piece.text for piece in prompt)
    sharing = SharedBeginning(system_prompt)
    return text[: sharing.characters(request, prompt, template, thinking=False)]


def test_the_operators_prompt_is_shared_to_its_last_letter_and_no_further() -> None:
    one = shared(chat((Role.SYSTEM, OPERATOR), (Role.USER, "hello")))
    other = shared(chat((Role.SYSTEM, OPERATOR), (Role.USER, "my secret")))
    assert one == other
    assert one.endswith(OPERATOR)


@pytest.mark.parametrize(
    "request_",
    [
        chat((Role.USER, "hello")),
        chat((Role.USER, OPERATOR)),
        chat((Role.SYSTEM, OPERATOR + " And mine."), (Role.USER, "hello")),
        chat((Role.SYSTEM, "my own"), (Role.USER, "hello")),
        chat((Role.USER, "hello"), (Role.SYSTEM, OPERATOR)),
    ],
)
def test_what_a_user_wrote_is_not_shared(request_: ChatRequest) -> None:
    assert shared(request_) == ""


def test_tools_are_the_users() -> None:
    text = shared(chat((Role.SYSTEM, OPERATOR), (Role.USER, "hello"), tools=(TOOL,)))
    assert "look" not in text


def test_without_a_system_prompt_nothing_is_shared() -> None:
    assert shared(chat((Role.SYSTEM, ""), (Role.USER, "hello")), "") == ""


def test_what_was_rendered_yesterday_is_rendered_again() -> None:
    request = chat((Role.SYSTEM, OPERATOR), (Role.USER, "hello"))
    template = ChatTemplate(model_info())
    sharing = SharedBeginning(OPERATOR)
    prompt = template.render(request.messages)
    length = sharing.characters(request, prompt, template, thinking=False)
    assert length > 0
    other = (PromptPiece("of another day " + prompt[0].text, trusted=True),)
    assert sharing.characters(request, other, template, thinking=False) == 0
    assert sharing.characters(request, prompt, template, thinking=False) == length
