"""Our own vocabulary: the page, and `/chat` in the two shapes that earlier clients speak."""

from __future__ import annotations

from service.api.dialects.native.errors import to_error
from service.api.dialects.native.routes import STATIC, router

NAME = "native"
PREFIX = ""
CHAT_PATHS = ("/chat", "/chat/stream")

__all__ = ["CHAT_PATHS", "NAME", "PREFIX", "STATIC", "router", "to_error"]
