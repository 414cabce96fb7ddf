"""From llama-server's requests to ours. Pure: no waiting, no effects."""

from __future__ import annotations

from service.api.dialects.llama_server.schemas import RerankBody
from service.domain.errors import InvalidRequest
from service.domain.vectors import RerankRequest

_MAX_TOKEN_ID = 2**31 - 1


def to_rerank_request(body: RerankBody, request_id: str) -> RerankRequest:
    """Raises `InvalidRequest`, naming the field."""
    if body.documents is not None and body.texts is not None:
        raise InvalidRequest("Send either documents or texts.", param="texts")
    if body.top_n is not None and body.top_n < 1:
        raise InvalidRequest(f"top_n is {body.top_n}; it must be at least 1.", param="top_n")
    documents = tuple(body.documents or body.texts or ())
    return RerankRequest(body.query, documents, body.model, request_id)


def to_token_ids(tokens: list[int]) -> tuple[int, ...]:
    """Raises `InvalidRequest` for what can't be token ids of any model."""
    wrong = next((i for i in tokens if not 0 <= i <= _MAX_TOKEN_ID), None)
    if wrong is not None:
        raise InvalidRequest(f"{wrong} is no token id.", param="tokens")
    return tuple(tokens)
