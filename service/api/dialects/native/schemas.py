"""The native wire bodies. Unknown fields are ignored; an optional null means absent."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from service.api.fields import Text


class ChatBody(BaseModel):
    """One message, as `user_input` or as `message`: the name chooses the shape of the reply."""

    user_input: Text | None = Field(None, examples=["Explain quantization in plain English."])
    message: Text | None = Field(None, examples=["Hello, how are you?"])
    session_id: str | None = Field(
        None,
        description="Which history to continue. With `message`, a new one when absent; with "
        "`user_input`, the caller's default one.",
    )
    temperature: float | None = Field(None, ge=0, le=2, description="0.7 when absent.")
    top_p: float | None = Field(
        None, ge=0, le=1, description="When absent: 0.95 with `user_input`, 0.9 with `message`."
    )
    max_tokens: int | None = Field(None, ge=1, description="512 when absent.")
    system_prompt: Text | None = Field(None, description="Instead of the operator's.")
    history: Annotated[int, Field(ge=0)] | Literal["all"] | None = Field(
        None,
        description="How many of the last exchanges the model is told again. When absent: as many "
        "as fit with `user_input`, 5 with `message`.",
    )

    background: bool = Field(
        False,
        description="The answer goes on, and is kept, when the connection closes; "
        "`POST /v1/conversations/{id}/stop` ends it.",
    )

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Self:
        if self.user_input is None and self.message is None:
            raise PydanticCustomError(
                "missing", "Field required: send 'message', or 'user_input' for the older shape"
            )
        if self.user_input is not None and self.message is not None:
            raise PydanticCustomError(
                "ambiguous", "Send either 'user_input' or 'message', not both of them"
            )
        return self


class SessionBody(BaseModel):
    session_id: str


class ResetBody(BaseModel):
    session_id: str | None = None


class UserInputReply(BaseModel):
    """What a `user_input` gets."""

    reply: str


class MessageReply(BaseModel):
    """What a `message` gets."""

    response: str
    session_id: str
    tokens_used: int | None


class ClearedReply(BaseModel):
    status: Literal["cleared"]
    session_id: str


class SessionList(BaseModel):
    sessions: list[str]
    count: int


class StreamFrame(BaseModel):
    """A frame of a JSON stream: first `session_id`, then `token`s, at last `done`."""

    session_id: str | None = None
    token: str | None = None
    done: bool | None = None
    finish_reason: str | None = None
    tokens_used: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


class Detail(BaseModel):
    detail: str | list[dict[str, Any]]
