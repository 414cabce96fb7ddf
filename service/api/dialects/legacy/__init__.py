"""`/api/v1`: the vocabulary of an earlier chat and generation service, for its clients."""

from __future__ import annotations

from service.api.dialects.legacy.errors import to_error
from service.api.dialects.legacy.routes import router

NAME = "legacy"
PREFIX = "/api/v1"
CHAT_PATHS = ("/api/v1/chat", "/api/v1/generate")

__all__ = ["CHAT_PATHS", "NAME", "PREFIX", "router", "to_error"]
