"""From what engines answer to llama-server's replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service import __version__
from service.api.dialects.llama_server.schemas import RerankBody
from service.domain.model import ModelInfo
from service.domain.vectors import Ranking


def to_rerank_reply(ranking: Ranking, body: RerankBody) -> dict[str, Any] | list[dict[str, Any]]:
    """The best first, in the shape of the body's kind of client."""
    order = sorted(range(len(ranking.scores)), key=lambda i: -ranking.scores[i])[: body.top_n]
    if body.texts is not None:
        return [_to_text_result(ranking, i, body.texts, body) for i in order]
    documents = body.documents or []
    return {
        "model": ranking.model.name,
        "object": "list",
        "usage": {"prompt_tokens": ranking.num_tokens, "total_tokens": ranking.num_tokens},
        "results": [_to_result(ranking, i, documents, body) for i in order],
    }


def _to_result(
    ranking: Ranking, index: int, documents: Sequence[str], body: RerankBody
) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "relevance_score": ranking.scores[index]}
    if body.return_documents:
        result["document"] = {"text": documents[index]}
    return result


def _to_text_result(
    ranking: Ranking, index: int, texts: Sequence[str], body: RerankBody
) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "score": ranking.scores[index]}
    if body.return_text:
        result["text"] = texts[index]
    return result


def to_tokens(token_ids: Sequence[int], pieces: Sequence[bytes] | None) -> list[Any]:
    """Numbers, or with pieces each token as an object."""
    if pieces is None:
        return list(token_ids)
    return [
        {"id": token_id, "piece": to_piece(piece)}
        for token_id, piece in zip(token_ids, pieces, strict=True)
    ]


def to_piece(piece: bytes) -> str | list[int]:
    """Half a character is no text: then its bytes."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


def to_props(model: ModelInfo) -> dict[str, Any]:
    return {
        "model_alias": model.name,
        "total_slots": model.num_slots,
        "chat_template": model.chat_template or "",
        "bos_token": model.bos_token,
        "eos_token": model.eos_token,
        "modalities": {"vision": False, "audio": False},
        "build_info": f"parley {__version__}",
        "default_generation_settings": {"n_ctx": model.context_length},
    }
