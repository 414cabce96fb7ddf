"""The wire bodies of Responses. Unknown fields are ignored; an optional null means absent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.fields import Text

TOOL_TYPES = ("function", "custom", "namespace")
LOGPROBS = "message.output_text.logprobs"


class PartBody(BaseModel):
    """A piece of a message: text, a picture, or what the model once refused to say."""

    type: str
    text: Text | None = None
    refusal: Text | None = None
    image_url: Text | None = Field(None, description="A picture: an https: or data: URL.")
    detail: str | None = None


class ItemBody(BaseModel):
    """What was said, called, returned or thought; `type` is a message's where it is absent."""

    model_config = ConfigDict(extra="ignore")

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: Text | list[PartBody] | None = None
    call_id: str | None = None
    name: Text | None = None
    namespace: Text | None = None
    arguments: Text | None = None
    input: Text | None = Field(None, description="Of a custom tool's call: its text.")
    output: Text | list[PartBody] | None = None
    encrypted_content: Text | None = Field(None, description="Of a compaction.")

    @property
    def is_reference(self) -> bool:
        """Whether it stands for a kept item; the vendor lets even its type be left out."""
        bare = self.type is None and self.role is None and self.content is None
        return self.type == "item_reference" or (bare and self.id is not None)


class ToolBody(BaseModel):
    """A function, a custom tool, which takes text, or a namespace with `tools` of both kinds;
    other types are the vendor's own."""

    type: str
    name: Text | None = None
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: dict[str, Any] | None = Field(None, description="Of a custom tool's text.")
    tools: list[ToolBody] | None = None


class NamedTool(BaseModel):
    type: str
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[NamedTool] | None = None


class FormatBody(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    type: str
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextBody(BaseModel):
    format: FormatBody | None = None
    verbosity: str | None = None


class ReasoningBody(BaseModel):
    effort: str | None = None
    summary: str | None = None


class ConversationBody(BaseModel):
    id: str


class ResponseBody(BaseModel):
    """What is asked, and how it is to be answered."""

    model: str | None = None
    input: Text | list[ItemBody] | None = None
    instructions: Text | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationBody | None = None
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    tools: list[ToolBody] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningBody | None = None
    truncation: str | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    prompt: dict[str, Any] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[str] | None = None

    @property
    def conversation_id(self) -> str | None:
        named = self.conversation
        return named.id if isinstance(named, ConversationBody) else named

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())


class CompactBody(BaseModel):
    """A conversation that is to be made short."""

    model: str | None = None
    input: Text | list[ItemBody] | None = None
    instructions: Text | None = None
    previous_response_id: str | None = None


class CompactReply(BaseModel):
    """Messages that stay, and a `compaction` that stands for the rest; sent back as `input`."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[dict[str, Any]]
    usage: dict[str, Any]


class ResponseReply(BaseModel):
    """A response; `output` holds messages, calls and thoughts in the order they came."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["completed", "incomplete", "failed", "in_progress", "queued", "cancelled"]
    background: bool
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    previous_response_id: str | None


class ItemList(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class DeletedReply(BaseModel):
    id: str
    object: Literal["response"]
    deleted: bool


class InputTokensReply(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    error: ErrorBody
