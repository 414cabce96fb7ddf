"""OpenAI's vocabulary: chat completions and the list of models, under `/v1`."""

from __future__ import annotations

from service.api.dialects.openai.completions import router as completions_router
from service.api.dialects.openai.embeddings import router as embeddings_router
from service.api.dialects.openai.prompts import TEMPLATE_PATH
from service.api.dialects.openai.prompts import router as prompts_router
from service.api.dialects.openai.routes import router
from service.api.openai_errors import to_error

NAME = "openai"
PREFIX = "/v1"
CHAT_PATHS = ("/v1/chat/completions", "/v1/chat/completions/think", "/v1/completions")

__all__ = [
    "CHAT_PATHS",
    "NAME",
    "PREFIX",
    "TEMPLATE_PATH",
    "completions_router",
    "embeddings_router",
    "prompts_router",
    "router",
    "to_error",
]
