"""What tools were called before: `functions`, one call at most, and answers by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from service.api.dialects.openai.schemas import (
    ChatCompletionBody,
    FunctionBody,
    MessageBody,
    NamedFunction,
    ToolBody,
    ToolCallBody,
    ToolChoiceBody,
)
from service.domain.chat import ToolCall
from service.domain.errors import InvalidRequest
from service.domain.events import ToolCallDelta

_CHOICES = "'auto', 'none' or {\"name\": …}"


def with_tools(body: ChatCompletionBody) -> ChatCompletionBody:
    """The body in today's words. Raises `InvalidRequest` where it mixes both."""
    if body.function_call is not None and not body.functions:
        raise InvalidRequest(
            "function_call asks for a function; there are none.", param="function_call"
        )
    messages = list(_with_calls(body.messages))
    if not body.functions:
        return body.model_copy(update={"messages": messages})
    if body.tools or body.tool_choice is not None:
        raise InvalidRequest(
            "functions and tools both say what may be called; send one of them.",
            param="functions",
        )
    return body.model_copy(
        update={
            "messages": messages,
            "tools": [ToolBody(function=function) for function in body.functions],
            "tool_choice": _to_choice(body.function_call, body.functions),
            "parallel_tool_calls": False,
        }
    )


def _to_choice(
    choice: str | NamedFunction | None, functions: Sequence[FunctionBody]
) -> str | ToolChoiceBody | None:
    if isinstance(choice, NamedFunction):
        if choice.name not in {function.name for function in functions}:
            raise InvalidRequest(
                f"function_call names {choice.name[:160]!r}, which is not among the functions.",
                param="function_call",
            )
        return ToolChoiceBody(function=choice)
    if choice not in (None, "auto", "none"):
        raise InvalidRequest(
            f"function_call is {choice[:40]!r}; it must be {_CHOICES}.", param="function_call"
        )
    return choice


def _with_calls(messages: Iterable[MessageBody]) -> Iterable[MessageBody]:
    """Calls get an id, which the answer behind them then names."""
    latest: dict[str, str] = {}
    for index, message in enumerate(messages):
        if message.role == "function":
            if not message.name:
                raise InvalidRequest(
                    f"messages[{index}].name is missing.", param=f"messages[{index}].name"
                )
            call_id = latest.get(message.name, f"call_function_{index}")
            yield message.model_copy(update={"role": "tool", "tool_call_id": call_id})
        elif message.function_call is not None and not message.tool_calls:
            call = ToolCallBody(id=f"call_function_{index}", function=message.function_call)
            latest[message.function_call.name] = call.id
            yield message.model_copy(update={"tool_calls": [call]})
        else:
            yield message


def to_function_reply(calls: Sequence[ToolCall]) -> dict[str, Any]:
    """The one call; that there is no other, the answer was held to."""
    return {"name": calls[0].name, "arguments": calls[0].arguments}


def to_function_delta(delta: ToolCallDelta) -> dict[str, Any]:
    """The name is said once: the vendor's client joins strings."""
    if delta.name is None:
        return {"arguments": delta.arguments}
    return {"name": delta.name, "arguments": delta.arguments}
