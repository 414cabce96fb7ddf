"""OpenAI's embeddings: wire bodies, translation and route."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from service.api.deps import PrincipalDep, RequestIdDep, VectorsDep
from service.api.dialects.openai.schemas import ErrorReply
from service.api.fields import Text
from service.api.replies import Json
from service.api.streaming import while_connected
from service.domain.vectors import Embeddings, EmbedRequest

_MAX_TOKEN_ID = 2**31 - 1

router = APIRouter(
    prefix="/v1",
    tags=["openai"],
    responses={
        "4XX": {"model": ErrorReply, "description": "The inputs cannot be read as they stand."},
        503: {"model": ErrorReply, "description": "No engine can take the request now."},
    },
)


def _to_inputs(given: object) -> list[object]:
    """One input as the list of one that it is: a text, or token ids."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise PydanticCustomError("input_type", "Send a text, a list of texts, or token ids")
    if given and all(_is_token_id(item) for item in given):
        return [given]
    for number, item in enumerate(given):
        is_ids = isinstance(item, list) and all(_is_token_id(i) for i in item)
        if not is_ids and not isinstance(item, str):
            raise PydanticCustomError(
                "input_type", "Entry {number} is neither a text nor token ids", {"number": number}
            )
    return given


def _is_token_id(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= _MAX_TOKEN_ID


class EmbeddingsBody(BaseModel):
    """Texts, or their token ids, to turn into vectors. Unknown fields are ignored."""

    input: Annotated[
        list[Text | list[int]],
        BeforeValidator(
            _to_inputs, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ]
    model: Text | None = Field(None, description="The embedding model when absent.")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, description="Keep only so many numbers of each vector.")


class EmbeddingReply(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """Vectors of length 1; in base64 they are 32-bit floats, little-endian."""

    object: Literal["list"]
    data: list[EmbeddingReply]
    model: str
    usage: EmbeddingsUsage


@router.post("/embeddings", response_model=EmbeddingsReply)
async def create_embeddings(
    http_request: Request,
    body: EmbeddingsBody,
    vectors: VectorsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Turn texts into vectors, by the embedding model that the service is given."""
    request = to_embed_request(body, request_id)
    work = vectors.embed(request, principal)
    made = await while_connected(http_request.receive, work)
    return Json(to_embeddings_reply(made, in_base64=body.encoding_format == "base64"))


def to_embed_request(body: EmbeddingsBody, request_id: str) -> EmbedRequest:
    """The dialect-neutral request. Raises `InvalidRequest`."""
    inputs = tuple(each if isinstance(each, str) else tuple(each) for each in body.input)
    return EmbedRequest(inputs, body.model, body.dimensions, request_id)


def to_embeddings_reply(made: Embeddings, *, in_base64: bool) -> dict[str, Any]:
    write = _to_base64 if in_base64 else _to_floats
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(made.vectors)
        ],
        "model": made.model.name,
        "usage": {"prompt_tokens": made.num_tokens, "total_tokens": made.num_tokens},
    }


def _to_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode("ascii")


def _to_floats(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))
