"""OpenAI's wire bodies.

Unknown fields are ignored, as the vendor does; any optional field may be null, which means absent.
Fields that would change the meaning of an answer, and are not understood, are refused by name in
`translate`. The replies document what `translate` builds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.dialects.openai.options import SamplingOptions
from service.api.fields import Text


def _to_parts(content: object) -> object:
    """Text as the one part that it is, so that there is one shape of content."""
    if content is None or isinstance(content, list):
        return content
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    raise PydanticCustomError("content_type", "Send a string or a list of parts")


class ImageUrlBody(BaseModel):
    """`detail` is the model's own business."""

    url: Text


class ContentPart(BaseModel):
    type: str
    text: Text | None = None
    refusal: Text | None = None
    image_url: Annotated[
        ImageUrlBody | None,
        BeforeValidator(lambda url: {"url": url} if isinstance(url, str) else url),
    ] = Field(None, description="A picture: an https: or data: URL.")


class CalledFunction(BaseModel):
    name: Text
    arguments: Text = "{}"


class CalledCustomTool(BaseModel):
    name: Text
    input: Text = ""


class ToolCallBody(BaseModel):
    """A call of a function, or of a custom tool, which takes text."""

    id: Text
    type: Literal["function", "custom"] = "function"
    function: CalledFunction | None = None
    custom: CalledCustomTool | None = None

    @model_validator(mode="after")
    def _says_what_is_called(self) -> Self:
        if self.type == "function" and self.function is None:
            raise PydanticCustomError("no_function", "Say which function is called")
        if self.type == "custom" and self.custom is None:
            raise PydanticCustomError("no_custom", "Say which custom tool is called")
        return self


class FunctionBody(BaseModel):
    name: Text
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomToolBody(BaseModel):
    name: Text
    description: Text | None = None
    format: dict[str, Any] | None = Field(None, description="Any text, or text of a grammar.")


class ToolBody(BaseModel):
    """A function, or a custom tool, which takes text."""

    type: Text = "function"
    function: FunctionBody | None = None
    custom: CustomToolBody | None = None


class NamedFunction(BaseModel):
    name: Text


class NamedTool(BaseModel):
    """The function or custom tool in a list of allowed ones."""

    function: NamedFunction | None = None
    custom: NamedFunction | None = None


class AllowedToolsBody(BaseModel):
    mode: Text
    tools: list[NamedTool]


class ToolChoiceBody(BaseModel):
    """One function or custom tool, or those that are allowed."""

    type: Text | None = None
    function: NamedFunction | None = None
    custom: NamedFunction | None = None
    allowed_tools: AllowedToolsBody | None = None


Content = Annotated[
    list[ContentPart] | None,
    BeforeValidator(_to_parts, json_schema_input_type=str | list[ContentPart] | None),
]


class MessageBody(BaseModel):
    """One message; `developer` is the newer word for `system`, `function` the older for `tool`."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: Content = None
    name: Text | None = Field(None, description="Of a function whose answer this is.")
    tool_calls: list[ToolCallBody] | None = None
    function_call: CalledFunction | None = Field(None, description="Before there were tools.")
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class JsonSchemaFormat(BaseModel):
    """`strict` changes nothing: a schema is held to, or refused."""

    name: Text
    description: Text | None = None
    schema_: Any = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """`schema` beside `json_object` is llama.cpp's."""

    type: Text
    json_schema: JsonSchemaFormat | None = None
    schema_: Any = Field(None, alias="schema")


class ChatCompletionBody(SamplingOptions):
    """A chat to complete, with llama.cpp's sampling options beside the vendor's."""

    messages: list[MessageBody]
    model: Text | None = Field(None, description="The served model when absent.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(
        None, description="At most so many new tokens; the rest of the context when absent."
    )
    max_tokens: int | None = Field(None, description="The older name of max_completion_tokens.")
    truncation: Text | None = Field(
        None, description="`auto`: leave out the oldest exchanges of a chat that does not fit."
    )
    reasoning_effort: str | None = Field(None, description="`none` and `minimal`: don't think.")
    # llama.cpp's
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description='`{"enable_thinking": true}` lets a reasoning model think.'
    )
    reasoning_budget: int | None = Field(
        None, description="Tokens after which a thought is closed; 0: don't think, -1: no limit."
    )
    include_reasoning: bool | None = Field(
        None, description="Send reasoning_content beside content."
    )
    tools: list[ToolBody] | None = None
    tool_choice: Text | ToolChoiceBody | None = Field(
        None, description="`auto`, `none`, `required`, a function, or those that are allowed."
    )
    parallel_tool_calls: bool | None = Field(
        None, description="false: at most one call in an answer."
    )
    response_format: ResponseFormat | None = Field(
        None, description="Hold the answer to JSON, or to a JSON schema."
    )
    grammar: Text | None = Field(None, description="Hold the answer to this GBNF grammar.")
    json_schema: Any = Field(None, description="Hold the answer to this JSON schema.")
    # vLLM's
    guided_json: Any = Field(None, description="Another name of json_schema.")
    guided_regex: Text | None = Field(None, description="Hold the answer to this expression.")
    guided_choice: list[Text] | None = Field(None, description="The answer is one of these.")
    logprobs: bool | None = Field(None, description="Tell how likely each token was.")
    top_logprobs: int | None = Field(None, description="And what else could have come: 0 to 20.")
    functions: list[FunctionBody] | None = Field(None, description="Before there were tools.")
    function_call: Text | NamedFunction | None = Field(
        None, description="`auto`, `none`, or one of the functions."
    )
    service_tier: Text | None = Field(
        None, description="`flex`: after everybody who waits for an answer; all else: as usual."
    )
    # vLLM's
    priority: int | None = Field(None, description="Above 0: as service_tier's `flex`.")
    # Understood well enough to be refused by name.
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int


class CompletionUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


FinishWord = Literal["stop", "length", "tool_calls", "function_call"]


class CalledFunctionReply(BaseModel):
    name: str
    arguments: str


class CalledCustomToolReply(BaseModel):
    name: str
    input: str


class ToolCallReply(BaseModel):
    """`function` or `custom` is there, as `type` says."""

    id: str
    type: Literal["function", "custom"]
    function: CalledFunctionReply | None = None
    custom: CalledCustomToolReply | None = None


class ReplyMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallReply] | None = None
    function_call: CalledFunctionReply | None = None
    reasoning_content: str | None = None


class CandidateReply(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprobReply(CandidateReply):
    top_logprobs: list[CandidateReply]


class LogprobsReply(BaseModel):
    content: list[TokenLogprobReply] | None
    refusal: None


class Choice(BaseModel):
    index: int
    message: ReplyMessage
    logprobs: LogprobsReply | None
    finish_reason: FinishWord


class ChatCompletionReply(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: CompletionUsage


class FunctionDelta(BaseModel):
    name: str | None = None
    arguments: str


class CustomToolDelta(BaseModel):
    name: str | None = None
    input: str


class ToolCallDeltaReply(BaseModel):
    """`id`, `type` and the name are there in a call's first piece only."""

    index: int
    id: str | None = None
    type: Literal["function", "custom"] | None = None
    function: FunctionDelta | None = None
    custom: CustomToolDelta | None = None


class ChunkDelta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDeltaReply] | None = None
    function_call: FunctionDelta | None = None
    reasoning_content: str | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: ChunkDelta
    logprobs: LogprobsReply | None
    finish_reason: FinishWord | None


class ChatCompletionChunk(BaseModel):
    """One frame of a stream; the last one before `[DONE]` may hold only the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


class InputTokensReply(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class ModelReply(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    description: str
    context_length: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelReply]


class ErrorFacts(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    error: ErrorFacts
