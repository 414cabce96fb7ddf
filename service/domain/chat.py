"""A chat, as every dialect and every model can understand it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from service.domain.constraint import Constraint
from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 512


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asked for; `arguments` is JSON text, as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is JSON text of a JSON schema."""

    name: str
    description: str = ""
    parameters: str = "{}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat. A tool's answer names its call in `tool_call_id`."""

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""


class ToolMode(StrEnum):
    """Whether the model may, must not or must call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`names`, where there are any, are the only tools that may be called."""

    mode: ToolMode = ToolMode.AUTO
    names: tuple[str, ...] = ()


class Priority(StrEnum):
    """`BATCH` work is done when nobody interactive waits."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to answer, and how. Dialect-neutral; valid by construction.

    `model` None means the one that is served. `max_tokens` None means the rest of the context.
    `thinking` None means the service's default, which is off; after `reasoning_budget` tokens of
    it the thought is closed. `logprobs` None means none, else that many alternatives besides each
    token's own. The deadlines are seconds from now until the first token and until the end.
    `request_id` follows the request through logs and processes. Raises `InvalidRequest`.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    constraint: Constraint | None = None
    thinking: bool | None = None
    reasoning_budget: int | None = None
    logprobs: int | None = None
    priority: Priority = Priority.INTERACTIVE
    first_token_seconds: float | None = None
    deadline_seconds: float | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidRequest("messages is empty; send at least one.", param="messages")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidRequest(
                f"max_tokens is {self.max_tokens}; it must be at least 1.", param="max_tokens"
            )
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(
                f"stop has {len(self.stop)} strings; at most {MAX_STOP_STRINGS} are accepted.",
                param="stop",
            )
        if any(not s or len(s) > MAX_STOP_LENGTH for s in self.stop):
            raise InvalidRequest(
                f"each stop string must have 1 to {MAX_STOP_LENGTH} characters.", param="stop"
            )


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """A stretch of rendered prompt.

    Only in a `trusted` piece, which comes from the chat template, may the spelling of a control
    token become that token; text from people and tools is never trusted.
    """

    text: str
    trusted: bool


Prompt = tuple[PromptPiece, ...]
