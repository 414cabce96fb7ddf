"""What llama-server's own clients ask for beside OpenAI's vocabulary: reranking, and the model's
words and properties."""

from __future__ import annotations

from service.api.dialects.llama_server.errors import to_error
from service.api.dialects.llama_server.infill import router as infill_router
from service.api.dialects.llama_server.routes import router

# Each of them is this dialect's alone.
PATHS = (
    "/rerank",
    "/reranking",
    "/v1/rerank",
    "/v1/reranking",
    "/tokenize",
    "/detokenize",
    "/props",
    "/infill",
)

__all__ = ["PATHS", "infill_router", "router", "to_error"]
