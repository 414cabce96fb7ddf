"""The text of a conversation, exactly as the model reads and writes it.

`render` is the training side, `TEMPLATE` the same format as a Jinja chat template, as it stands in
the GGUF. A test holds the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Piece = tuple[str, bool]
"""A text, and whether the model has to produce it."""

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
]
CONTROL = frozenset(SPECIALS[:3])  # the others are shown as text, as in Qwen3
TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and "
    "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
NO_THOUGHT = "<think>\n\n</think>\n\n"
CALL_START = '<tool_call>\n{"name": "'
TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text("utf-8").strip()


@dataclass
class Conversation:
    """Messages and the tools they may call. With `thinking` the last answer has a thought."""

    messages: list[Message]
    tools: list[Message] = field(default_factory=list)
    thinking: bool = False
    sort_keys: bool = False

    @property
    def user_texts(self) -> list[str]:
        return [m["content"] for m in self.messages if m["role"] == "user"]


def render(conversation: Conversation) -> list[Piece]:
    """The conversation in pieces, with the answers marked as what is to be learnt."""
    messages = conversation.messages
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    pieces = _opening(conversation)
    for i, message in enumerate(messages):
        if message["role"] == "user":
            pieces.append((f"<|im_start|>user\n{message['content']}<|im_end|>\n", False))
        elif message["role"] == "tool":
            pieces.append((_tool_answer(messages, i), False))
        elif message["role"] == "assistant":
            pieces += _answer(message, thinking=conversation.thinking and i == last)
    return pieces


def full_text(conversation: Conversation) -> str:
    """Everything the model sees of a conversation."""
    return "".join(text for text, _ in render(conversation))


def _opening(conversation: Conversation) -> list[Piece]:
    first = conversation.messages[0]
    system = first["content"] if first["role"] == "system" else ""
    if conversation.tools:
        lines = [json.dumps(t, sort_keys=conversation.sort_keys) for t in conversation.tools]
        system += "\n\n" * bool(system) + "\n".join([TOOLS_HEAD, *lines]) + TOOLS_TAIL
    return [(f"<|im_start|>system\n{system}<|im_end|>\n", False)] if system else []


def _tool_answer(messages: list[Message], at: int) -> str:
    """Tool answers that follow one another share one turn."""
    start = "" if messages[at - 1]["role"] == "tool" else "<|im_start|>user"
    more = at + 1 < len(messages) and messages[at + 1]["role"] == "tool"
    body = f"\n<tool_response>\n{messages[at]['content']}\n</tool_response>"
    return start + body + ("" if more else "<|im_end|>\n")


def _answer(message: Message, *, thinking: bool) -> list[Piece]:
    calls = "\n".join(
        f'{CALL_START}{c["name"]}", "arguments": {json.dumps(c["arguments"])}}}\n</tool_call>'
        for c in message.get("tool_calls", [])
    )
    body = message["content"] + calls + "<|im_end|>"
    if thinking:
        thought = f"<think>\n{message['think']}\n</think>\n\n"
        return [("<|im_start|>assistant\n", False), (thought + body, True), ("\n", False)]
    given = CALL_START if message.get("forced") else ""
    start = "<|im_start|>assistant\n" + NO_THOUGHT + given
    return [(start, False), (body.removeprefix(given), True), ("\n", False)]
