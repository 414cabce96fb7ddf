"""llama-server's routes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.deps import CurrentModelDep, EnginesDep, PrincipalDep, RequestIdDep, VectorsDep
from service.api.dialects.llama_server.replies import to_props, to_rerank_reply, to_tokens
from service.api.dialects.llama_server.schemas import (
    DetokenizeBody,
    DetokenizeReply,
    ErrorReply,
    PropsReply,
    RankedText,
    RerankBody,
    RerankReply,
    TokenizeBody,
    TokenizeReply,
)
from service.api.dialects.llama_server.translate import to_rerank_request, to_token_ids
from service.api.replies import Json
from service.api.streaming import while_connected
from service.chat import words
from service.domain.chat import PromptPiece
from service.domain.errors import EngineUnavailable

router = APIRouter(
    tags=["llama-server"],
    responses={
        "4XX": {"model": ErrorReply, "description": "The request cannot be answered as it stands."},
        503: {"model": ErrorReply, "description": "No engine can take the request now."},
    },
)


@router.post("/rerank", response_model=RerankReply | list[RankedText])
@router.post("/reranking", response_model=RerankReply | list[RankedText])
@router.post("/v1/rerank", response_model=RerankReply | list[RankedText])
@router.post("/v1/reranking", response_model=RerankReply | list[RankedText])
async def rerank(
    http_request: Request,
    body: RerankBody,
    vectors: VectorsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Put documents in order by how well they answer a query."""
    work = vectors.rerank(to_rerank_request(body, request_id), principal)
    ranking = await while_connected(http_request.receive, work)
    return Json(to_rerank_reply(ranking, body))


@router.post("/tokenize", response_model=TokenizeReply)
async def tokenize(body: TokenizeBody, engines: EnginesDep) -> Response:
    """The token ids of a text, as the model sees it. Nothing is generated from them, so that a
    spelling of a control token may be that token."""
    with_pieces = bool(body.with_pieces)
    tokenized = await words.tokenize(
        engines,
        PromptPiece(body.content, trusted=body.parse_special is not False),
        body.model,
        add_special=bool(body.add_special),
        with_pieces=with_pieces,
    )
    pieces = tokenized.pieces if with_pieces else None
    return Json({"tokens": to_tokens(tokenized.token_ids, pieces)})


@router.post("/detokenize", response_model=DetokenizeReply)
async def detokenize(body: DetokenizeBody, engines: EnginesDep) -> Response:
    """The text of token ids, control tokens spelled out."""
    token_ids = to_token_ids(body.tokens)
    return Json({"content": await words.detokenize(engines, token_ids, body.model)})


@router.get("/props", response_model=PropsReply)
async def props(model: CurrentModelDep) -> Response:
    """Facts about the model that answers chats."""
    if model is None:
        raise EngineUnavailable("No model is loaded yet.")
    facts: dict[str, Any] = to_props(model)
    return Json(facts)
