"""From a whole answer to Anthropic's replies."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from service.api.dialects.anthropic.tools import to_use_block
from service.chat.generate import Answer
from service.domain.events import Finished, FinishReason, Usage
from service.domain.model import ModelInfo

# Clients keep a thought's signature and send it back. There is nobody here who would check it.
SIGNATURE = "unsigned"


class Thoughts(Enum):
    """What becomes of the model's thoughts."""

    LEFT_OUT = 0
    EMPTIED = 1  # a block without the thought itself
    SHOWN = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """What the reply says from its first event on."""

    model: ModelInfo
    max_tokens: int
    thoughts: Thoughts = Thoughts.LEFT_OUT
    id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")

    def head(self, content: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """A message that has not stopped yet."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model.name,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": to_usage(usage),
        }

    def stop(self, finished: Finished) -> dict[str, Any]:
        """Why it stopped."""
        return {
            "stop_reason": self._stop_reason(finished),
            "stop_sequence": finished.stop_sequence,
        }

    def _stop_reason(self, finished: Finished) -> str:
        if finished.reason is FinishReason.TOOL_CALLS:
            return "tool_use"
        if finished.reason is FinishReason.STOP:
            return "end_turn" if finished.stop_sequence is None else "stop_sequence"
        reached = finished.usage.completion_tokens >= self.max_tokens
        full = finished.usage.total_tokens + 1 >= self.model.context_length
        if finished.reason is FinishReason.LENGTH and full and not reached:
            return "model_context_window_exceeded"
        # For an answer that we cut short ourselves the vendor has no word: this is the nearest.
        return "max_tokens"


def to_message(reply: Reply, answer: Answer) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    if answer.reasoning and reply.thoughts is not Thoughts.LEFT_OUT:
        thought = answer.reasoning if reply.thoughts is Thoughts.SHOWN else ""
        blocks.append({"type": "thinking", "thinking": thought, "signature": SIGNATURE})
    at = answer.num_before_calls if answer.tool_calls else len(answer.text)
    before, behind = answer.text[:at], answer.text[at:]
    if before:
        blocks.append({"type": "text", "text": before})
    blocks += map(to_use_block, answer.tool_calls)
    if behind:
        blocks.append({"type": "text", "text": behind})
    return reply.head(blocks, answer.finished.usage) | reply.stop(answer.finished)


def to_usage(usage: Usage) -> dict[str, int]:
    """The vendor's `input_tokens` are only those that had to be read."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def to_model_reply(model: ModelInfo) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created, UTC)
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": model.context_length,
        "max_tokens": model.context_length,
    }


def to_model_page(model: ModelInfo | None) -> dict[str, Any]:
    """All models on one page: the one that is served, or none."""
    name = model.name if model else None
    data = [to_model_reply(model)] if model else []
    return {"data": data, "has_more": False, "first_id": name, "last_id": name}
