"""Anthropic's wire bodies.

Unknown fields are ignored, as are blocks of unknown types; any optional field may be null, which
means absent. Fields that would change the meaning of an answer, and are not understood, are
refused by name in `translate`. The replies document what `replies` and `frames` build.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.fields import Text

BLOCK_TYPES = frozenset(
    {
        "text",
        "image",
        "document",
        "search_result",
        "container_upload",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
    }
)


def _to_blocks(content: object) -> object:
    """Text as the one block that it is, so that there is one shape of content."""
    if content is None or isinstance(content, list):
        return content
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    raise PydanticCustomError("content_type", "Send a string or a list of blocks")


class SourceBody(BaseModel):
    """Where a picture is: in `data`, or at `url`."""

    type: Text
    media_type: Text | None = None
    data: Text | None = None
    url: Text | None = None


class ResultBlock(BaseModel):
    """A block as it may also stand in a tool's result."""

    type: str
    text: Text | None = None
    source: SourceBody | None = Field(None, description="A picture.")

    @model_validator(mode="before")
    @classmethod
    def _unknown_is_only_named(cls, block: object) -> object:
        """What is in a block of unknown type can't be wrong."""
        if isinstance(block, dict) and isinstance(block.get("type"), str):
            known = block["type"] in BLOCK_TYPES
            return _without_source(block) if known else {"type": block["type"]}
        return block


def _without_source(block: dict[str, Any]) -> dict[str, Any]:
    """Only a picture's source is looked at: others have shapes of their own."""
    if block["type"] == "image":
        return block
    return {name: value for name, value in block.items() if name != "source"}


ResultBlocks = Annotated[
    list[ResultBlock] | None,
    BeforeValidator(_to_blocks, json_schema_input_type=str | list[ResultBlock] | None),
]


class Block(ResultBlock):
    """One block of a message. A thought comes back with its signature, which is not looked at."""

    thinking: Text | None = None
    id: Text | None = None
    name: Text | None = None
    input: dict[str, Any] | None = None
    tool_use_id: Text | None = None
    content: ResultBlocks = None
    is_error: bool | None = None


Blocks = Annotated[
    list[Block] | None,
    BeforeValidator(_to_blocks, json_schema_input_type=str | list[Block] | None),
]


class TurnBody(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: Blocks = None


class ThinkingBody(BaseModel):
    """Whether the model may think before it answers, and for how many tokens at most."""

    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class ToolBody(BaseModel):
    """A tool that the client runs; other types are the vendor's own."""

    type: Text | None = None
    name: Text
    description: Text | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceBody(BaseModel):
    type: Text
    name: Text | None = None
    disable_parallel_tool_use: bool | None = None


class FormatBody(BaseModel):
    type: Text
    schema_: Any = Field(None, alias="schema")


class OutputConfigBody(BaseModel):
    format: FormatBody | None = Field(None, description="Hold the answer to a JSON schema.")
    effort: Text | None = None


class CountTokensBody(BaseModel):
    """What a prompt is made of."""

    messages: list[TurnBody]
    model: Text | None = Field(None, description="The served model when absent.")
    system: ResultBlocks = None
    thinking: ThinkingBody | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    # Understood well enough to be refused by name.
    output_config: OutputConfigBody | None = None
    output_format: FormatBody | None = Field(
        None, description="The older place of output_config.format."
    )
    mcp_servers: list[Any] | None = None
    container: Any = None


class MessagesBody(CountTokensBody):
    """Messages to answer."""

    max_tokens: int = Field(description="At most so many new tokens, thoughts included.")
    stream: bool | None = None
    stop_sequences: list[Text] | None = None
    temperature: float | None = Field(None, description="0 to 1; 1 when absent.")
    top_k: int | None = None
    top_p: float | None = None


class CountTokensReply(BaseModel):
    input_tokens: int


class UsageReply(BaseModel):
    """The prompt has `input_tokens` that were read and `cache_read_input_tokens` that were not
    read again."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class ReplyBlock(BaseModel):
    type: Literal["text", "thinking", "tool_use"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class MessagesReply(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ReplyBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: UsageReply


class RefusalFacts(BaseModel):
    type: str
    message: str


class RefusalReply(BaseModel):
    type: Literal["error"]
    error: RefusalFacts
    request_id: str


class DeltaReply(BaseModel):
    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"] | None = (
        None
    )
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None


class MessagesEvent(BaseModel):
    """One event of a stream; its SSE name is its `type`."""

    type: Literal[
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    ]
    message: MessagesReply | None = None
    index: int | None = None
    content_block: ReplyBlock | None = None
    delta: DeltaReply | None = None
    usage: UsageReply | None = None
    error: RefusalFacts | None = None
    request_id: str | None = None
