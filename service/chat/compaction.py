"""A long conversation made short: what was said, summarized by the model itself."""

from __future__ import annotations

from dataclasses import replace

from service.domain.chat import ChatRequest, Message, Role, ToolChoice

_ASK = (
    "Summarize this conversation for whoever goes on with it: what is wanted, what was found out "
    "and decided, what was done, and what remains to be done. Keep names, numbers and paths as "
    "they are. Write the summary, and nothing else."
)
_TELL = "This is what was said before, in short:\n\n"
MAX_TOKENS = 2048


def to_summary_request(request: ChatRequest) -> ChatRequest:
    """A request for the summary of all that another one tells. Its oldest exchanges are left out
    where even that is too long."""
    return replace(
        request,
        messages=(*request.messages, Message(Role.USER, _ASK)),
        max_tokens=MAX_TOKENS,
        tools=(),
        tool_choice=ToolChoice(),
        thinking=False,
        truncate=True,
    )


def to_message(summary: str) -> Message:
    """What the model is told instead of what was summarized."""
    return Message(Role.USER, _TELL + summary)
