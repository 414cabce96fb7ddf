"""How calls are told: as those of tools, or as they were before there were any."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from service.api.custom_tools import InputReader, to_input
from service.api.dialects.openai.functions import to_function_delta, to_function_reply
from service.api.dialects.openai.schemas import ChatCompletionBody
from service.api.dialects.openai.tools import custom_tools
from service.domain.chat import ToolCall
from service.domain.events import ToolCallDelta

Wire = dict[str, Any]


class CallWords(Protocol):
    """Calls in a message's words; `finish_word` is why an answer ended that has some."""

    finish_word: str

    def whole(self, calls: Sequence[ToolCall]) -> Wire:
        """What a message says of its calls."""
        ...

    def delta(self, choice: int, delta: ToolCallDelta) -> Wire | None:
        """What a frame of a choice says of a call; None where nothing is certain yet."""
        ...

    def rest(self, choice: int) -> Wire | None:
        """What a frame says at a choice's end that was not certain before; None for nothing."""
        ...


def call_words(body: ChatCompletionBody) -> CallWords:
    """The words for one answer to this request."""
    return FunctionWords() if body.functions else ToolWords(custom_tools(body))


class FunctionWords:
    """The one call; that there is no other, the answer was held to."""

    finish_word = "function_call"

    def whole(self, calls: Sequence[ToolCall]) -> Wire:
        return {"function_call": to_function_reply(calls)}

    def delta(self, choice: int, delta: ToolCallDelta) -> Wire | None:
        return {"function_call": to_function_delta(delta)}

    def rest(self, choice: int) -> Wire | None:
        return None


class ToolWords:
    """Calls of functions, and of those `custom` ones that take text."""

    finish_word = "tool_calls"

    def __init__(self, custom: Collection[str] = ()) -> None:
        self._custom = custom
        self._inputs: dict[tuple[int, int], InputReader] = {}

    def whole(self, calls: Sequence[ToolCall]) -> Wire:
        return {"tool_calls": [self._reply(call) for call in calls]}

    def delta(self, choice: int, delta: ToolCallDelta) -> Wire | None:
        """The vendor's client joins strings: id, type and name are said once, in a call's first
        frame."""
        place = choice, delta.index
        if delta.name in self._custom:
            self._inputs[place] = InputReader()
        is_custom = place in self._inputs
        kind, key = ("custom", "input") if is_custom else ("function", "arguments")
        written = self._inputs[place].feed(delta.arguments) if is_custom else delta.arguments
        if delta.name is None:
            if is_custom and not written:
                return None
            return {"tool_calls": [{"index": delta.index, kind: {key: written}}]}
        told = {"name": delta.name, key: written}
        return {"tool_calls": [{"index": delta.index, "id": delta.id, "type": kind, kind: told}]}

    def rest(self, choice: int) -> Wire | None:
        """What was held back of text whose call was cut short."""
        held = {
            index: text
            for (place, index), reader in self._inputs.items()
            if place == choice and (text := reader.finish())
        }
        calls = [{"index": index, "custom": {"input": text}} for index, text in held.items()]
        return {"tool_calls": calls} if calls else None

    def _reply(self, call: ToolCall) -> Wire:
        if call.name in self._custom:
            told = {"name": call.name, "input": to_input(call.arguments)}
            return {"id": call.id, "type": "custom", "custom": told}
        told = {"name": call.name, "arguments": call.arguments}
        return {"id": call.id, "type": "function", "function": told}
