"""OpenAI's Responses: answers that are kept, and gone on from by their ids."""

from __future__ import annotations

from service.api.dialects.responses.routes import router
from service.api.openai_errors import to_error

NAME = "responses"
PREFIX = "/v1/responses"
CHAT_PATHS = ("/v1/responses",)

__all__ = ["CHAT_PATHS", "NAME", "PREFIX", "router", "to_error"]
