"""The legacy wire bodies. Unknown fields are ignored; an optional null means absent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.api.fields import Text


class Limits(BaseModel):
    """How long and how wild; `max_length` and `max_tokens` both count new tokens."""

    max_length: int | None = Field(None, ge=1, description="The same as `max_tokens`.")
    max_tokens: int | None = Field(None, ge=1, description="512 when absent; the smaller wins.")
    temperature: float | None = Field(None, ge=0, le=2, description="0.7 when absent.")
    top_p: float | None = Field(None, ge=0, le=1, description="0.95 when absent.")
    top_k: int | None = Field(None, ge=0, description="No limit when absent.")

    @property
    def num_tokens(self) -> int:
        given = [n for n in (self.max_length, self.max_tokens) if n is not None]
        return min(given, default=512)


class ChatBody(Limits):
    """One message, to a conversation or to a new one."""

    message: Text = Field(examples=["What is the capital of France?"])
    conversation_id: str | None = None


class GenerateBody(Limits):
    """Text to go on from, as it is."""

    prompt: Text = Field(examples=["Once upon a time"])


class ModelBody(BaseModel):
    """A model by its name."""

    model_name: Text = Field(min_length=1, max_length=1000)
    conversation_id: str | None = Field(
        None, description="The only conversation that it is to answer."
    )


class ChatReply(BaseModel):
    response: str
    conversation_id: str
    generation_time: float


class NewReply(BaseModel):
    conversation_id: str
    message: str


class ModelEntry(BaseModel):
    """`status` is `Loaded` or `Available`."""

    name: str
    status: str
    description: str
    context: int


class ModelsReply(BaseModel):
    models: list[ModelEntry]
    current_model: str | None


class GenerateReply(BaseModel):
    """What the model wrote behind the prompt."""

    generated_text: str
    prompt: str
    model_name: str
    tokens_generated: int
    generation_time: float


class SwitchReply(BaseModel):
    """The model that answers now."""

    status: Literal["success"]
    model_name: str
    previous_model: str
    message: str


class HistoryMessage(BaseModel):
    role: str
    content: str
    timestamp: float


class HistoryReply(BaseModel):
    conversation_id: str
    messages: list[HistoryMessage]
    created_at: float
    updated_at: float


class Detail(BaseModel):
    detail: str | list[dict[str, Any]]
