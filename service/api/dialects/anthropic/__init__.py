"""Anthropic's vocabulary: messages under `/v1/messages`, and its list of models."""

from __future__ import annotations

from service.api.dialects.anthropic.errors import to_error
from service.api.dialects.anthropic.routes import router

NAME = "anthropic"
PREFIX = "/v1/messages"
CHAT_PATHS = ("/v1/messages", "/v1/messages/clean", "/v1/messages/think")

__all__ = ["CHAT_PATHS", "NAME", "PREFIX", "router", "to_error"]
