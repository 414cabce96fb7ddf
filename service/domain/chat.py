"""A chat, as every dialect and every model can understand it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.domain.constraint import Constraint
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.pictures import Picture, refuse_stray_marks
from service.domain.sampling import Sampling

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 512
MAX_LOGPROBS = 20
MAX_TOOLS = 128
MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 64
MAX_TOOLS_BYTES = 192 * 1024
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


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
    """A function that the model may call; `parameters` is JSON text of a JSON schema, an object.

    What of the schema can't be enforced is not, unless `strict`: then it is refused. `grammar` is
    what the one argument, a text, is held to beside its schema. Raises `InvalidRequest`.
    """

    name: str
    description: str = ""
    parameters: str = "{}"
    strict: bool = False
    grammar: Constraint | None = None

    @classmethod
    def from_schema(
        cls, name: str, description: str, schema: Mapping[str, Any], *, strict: bool = False
    ) -> Tool:
        """With a parsed schema. Raises `InvalidRequest`, also for one that is not an object's."""
        kind = schema.get("type", "object")
        if kind != "object" and not (isinstance(kind, list) and "object" in kind):
            raise InvalidRequest(
                f"the schema of the tool {name[:160]!r} has the type {str(kind)[:40]!r}; it must "
                "be 'object'.",
                param="tools",
            )
        if _is_deeper(schema, MAX_SCHEMA_DEPTH):
            raise InvalidRequest(
                f"the schema of the tool {name[:160]!r} is more than {MAX_SCHEMA_DEPTH} levels "
                "deep.",
                param="tools",
            )
        return cls(name, description, json.dumps(schema), strict=strict)

    @property
    def size(self) -> int:
        """Characters of all that is to be told or followed."""
        grammar = "" if self.grammar is None else self.grammar.source
        return len(self.parameters) + len(self.description) + len(grammar)

    def __post_init__(self) -> None:
        if not _TOOL_NAME.fullmatch(self.name):
            raise InvalidRequest(
                f"the tool name {self.name[:160]!r} is not accepted: 1 to 128 letters, digits, "
                "underscores, dashes and dots are.",
                param="tools",
            )
        size = len(self.parameters)
        if size > MAX_SCHEMA_BYTES:
            raise InvalidRequest(
                f"the schema of the tool {self.name!r} has {size} characters; at most "
                f"{MAX_SCHEMA_BYTES} are accepted.",
                param="tools",
            )


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat. A tool's answer names its call in `tool_call_id`.

    `content` has a mark for each of its `pictures`, in their order.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""
    pictures: tuple[Picture, ...] = ()


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
    it the thought is closed. `reasoning_effort` is a word for the templates that know such words.
    The answer goes on from `begun`, which is no part of what is told, and is not thought about.
    `truncate` lets the oldest exchanges be dropped where all of them don't fit.
    `logprobs` None means none, else that many alternatives besides each
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
    reasoning_effort: str | None = None
    truncate: bool = False
    begun: str = ""
    logprobs: int | None = None
    priority: Priority = Priority.INTERACTIVE
    first_token_seconds: float | None = None
    deadline_seconds: float | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidRequest("messages is empty; send at least one.", param="messages")
        check_limits(self.max_tokens, self.stop, self.logprobs)
        self._check_tools()
        if self.begun and (self.constraint or self.tool_choice.mode is ToolMode.REQUIRED):
            raise Unsupported(
                "the beginning of the answer is given, and so is a form or a tool for all of it; "
                "leave one of them out.",
                param="messages",
            )
        if self.pictures:
            for message in self.messages:
                refuse_stray_marks(message.content, len(message.pictures))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those of all messages, in their order."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that this answer may call."""
        if self.tool_choice.mode is ToolMode.NONE:
            return ()
        names = self.tool_choice.names
        return tuple(tool for tool in self.tools if not names or tool.name in names)

    def _check_tools(self) -> None:
        if len(self.tools) > MAX_TOOLS:
            raise InvalidRequest(
                f"tools has {len(self.tools)} entries; at most {MAX_TOOLS} are accepted.",
                param="tools",
            )
        size = sum(tool.size for tool in self.tools)
        if size > MAX_TOOLS_BYTES:
            raise InvalidRequest(
                f"tools has {size} characters of schemas and descriptions; at most "
                f"{MAX_TOOLS_BYTES} are accepted.",
                param="tools",
            )
        known = {tool.name for tool in self.tools}
        if len(known) < len(self.tools):
            names = [tool.name for tool in self.tools]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidRequest(f"tools has {twice!r} more than once.", param="tools")
        unknown = [name for name in self.tool_choice.names if name not in known]
        if unknown:
            raise InvalidRequest(
                f"tool_choice names {unknown[0][:160]!r}, which is not among the tools.",
                param="tool_choice",
            )
        if self.tool_choice.mode is ToolMode.REQUIRED and not self.tools:
            raise InvalidRequest(
                "tool_choice asks for a tool; there are none.", param="tool_choice"
            )


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A text to go on with, as it stands: no template, and no spelling in it is a control token.

    The text may be given as token ids. What has the same name as in `ChatRequest` means the same.
    Raises `InvalidRequest`.
    """

    prompt: str | tuple[int, ...]
    model: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        check_limits(self.max_tokens, self.stop, self.logprobs)


def check_limits(
    max_tokens: int | None,
    stop: tuple[str, ...],
    logprobs: int | None = None,
    *,
    tokens_name: str = "max_tokens",
) -> None:
    """What holds for every answer, whatever was asked; `tokens_name` is what the caller calls
    `max_tokens`. Raises `InvalidRequest`."""
    if max_tokens is not None and max_tokens < 1:
        raise InvalidRequest(
            f"{tokens_name} is {max_tokens}; it must be at least 1.", param=tokens_name
        )
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(
            f"stop has {len(stop)} strings; at most {MAX_STOP_STRINGS} are accepted.", param="stop"
        )
    if any(not s or len(s) > MAX_STOP_LENGTH for s in stop):
        raise InvalidRequest(
            f"each stop string must have 1 to {MAX_STOP_LENGTH} characters.", param="stop"
        )
    if logprobs is not None and not 0 <= logprobs <= MAX_LOGPROBS:
        raise InvalidRequest(
            f"top_logprobs is {logprobs}; it must be between 0 and {MAX_LOGPROBS}.",
            param="top_logprobs",
        )


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """A stretch of rendered prompt.

    Only in a `trusted` piece, which comes from the chat template, may the spelling of a control
    token become that token; text from people and tools is never trusted. A piece with a `picture`
    (the digest of its bytes) or with `token_ids` has no text: those stand there.
    """

    text: str
    trusted: bool
    picture: str = ""
    token_ids: tuple[int, ...] = ()


Prompt = tuple[PromptPiece, ...]


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings are nested deeper than that."""
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list):
        return False
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)
