"""llama-server's wire bodies. Unknown fields are ignored, as there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from service.api.fields import Text


def _to_text(document: object) -> object:
    """Some clients wrap each document."""
    if isinstance(document, dict) and "text" in document:
        return document["text"]
    return document


Document = Annotated[
    Text, BeforeValidator(_to_text, json_schema_input_type=str | dict[Literal["text"], str])
]


class RerankBody(BaseModel):
    """A query, and documents to be put in order: `documents` as Jina's clients have it, `texts` as
    those of Text Embeddings Inference do."""

    query: Text
    documents: list[Document] | None = None
    texts: list[Text] | None = None
    model: Text | None = Field(None, description="The reranking model when absent.")
    top_n: int | None = Field(None, description="Only so many of the best; all when absent.")
    return_documents: bool | None = Field(None, description="With `documents`: repeat each.")
    return_text: bool | None = Field(None, description="With `texts`: repeat each.")


class RepeatedDocument(BaseModel):
    text: str


class RankedDocument(BaseModel):
    """`index` is the place among the documents that were sent."""

    index: int
    relevance_score: float
    document: RepeatedDocument | None = None


class RerankUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class RerankReply(BaseModel):
    """The best first. The scores are the model's own, not bound to 0 to 1."""

    model: str
    object: Literal["list"]
    usage: RerankUsage
    results: list[RankedDocument]


class RankedText(BaseModel):
    index: int
    score: float
    text: str | None = None


class TokenizeBody(BaseModel):
    content: Text = ""
    model: Text | None = Field(None, description="The one that answers chats when absent.")
    add_special: bool | None = Field(None, description="With what belongs around a text.")
    parse_special: bool | None = Field(
        None, description="Spellings of control tokens are those tokens; true when absent."
    )
    with_pieces: bool | None = Field(None, description="With the text of each token.")


class Token(BaseModel):
    """`piece` is a list of bytes where they are no whole characters."""

    id: int
    piece: str | list[int]


class TokenizeReply(BaseModel):
    tokens: list[int] | list[Token]


class DetokenizeBody(BaseModel):
    tokens: list[int] = []
    model: Text | None = Field(None, description="The one that answers chats when absent.")


class DetokenizeReply(BaseModel):
    content: str


class ErrorFacts(BaseModel):
    """`code` is the HTTP status."""

    code: int
    message: str
    type: str
    param: str | None = None


class ErrorReply(BaseModel):
    error: ErrorFacts


class PropsReply(BaseModel):
    """What a client may want to know of the model that answers chats."""

    model_alias: str
    total_slots: int
    chat_template: str
    bos_token: str
    eos_token: str
    modalities: dict[str, bool]
    build_info: str
    default_generation_settings: dict[str, Any]
