"""OpenAI's items: what responses and conversations are made of. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from service.chat.documents import STATUSES
from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState, ConversationSummary, KeptMessage
from service.domain.errors import InvalidRequest

Item = dict[str, Any]

_PREFIXES = {
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}


def new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def completed(items: Iterable[Item]) -> list[Item]:
    """Items of a request as they are kept and shown: each with an id, a status, and its content in
    parts."""
    return [_completed(item) for item in items]


def items_of(messages: Iterable[KeptMessage]) -> list[Item]:
    """What the messages of a conversation are; those that other dialects kept are texts."""
    found: list[Item] = []
    for kept in messages:
        found += [_as_item(kept)] if kept.items is None else json.loads(kept.items)
    return found


def to_turns(
    items: Sequence[Item], state: AnswerState = AnswerState.COMPLETE
) -> tuple[tuple[KeptMessage, ...], ...]:
    """Items as turns of a conversation: in each, what was said to the model, then what it said."""
    turns: list[tuple[list[Item], list[Item]]] = []
    for item in items:
        by_model = _is_by_model(item)
        if not turns or (turns[-1][1] and not by_model):
            turns.append(([], []))
        turns[-1][by_model].append(item)
    return tuple(
        (_to_message(Role.USER, said, AnswerState.COMPLETE), *_answer(answered, state))
        for said, answered in turns
    )


def without(kept: KeptMessage, item_id: str) -> KeptMessage:
    """A message of a conversation that has lost one of its items."""
    left = [item for item in items_of([kept]) if item["id"] != item_id]
    message = _to_message(kept.message.role, left, kept.state)
    return KeptMessage(
        kept.key, kept.turn, message.message, kept.state, kept.created_at, message.items
    )


def page_of(items: Sequence[Item], *, limit: int, order: str, after: str | None) -> dict[str, Any]:
    """A page of a list, as the vendor's clients turn them. Raises `InvalidRequest`."""
    listed = list(items if order == "asc" else reversed(items))
    if after is not None:
        ids = [item["id"] for item in listed]
        if after not in ids:
            raise InvalidRequest(f"after is {after[:80]!r}; no item has that id.", param="after")
        listed = listed[ids.index(after) + 1 :]
    page = listed[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": len(listed) > limit,
    }


def to_conversation(summary: ConversationSummary) -> dict[str, Any]:
    """A conversation: what the vendor's has, and beside it what people look for."""
    title = {"title": summary.title} if "title" in summary.metadata else {}
    return {
        "id": summary.id,
        "object": "conversation",
        "title": summary.title,
        "created_at": int(summary.created_at),
        "updated_at": summary.updated_at,
        "num_turns": summary.num_turns,
        "metadata": {**summary.metadata, **title},
    }


def _completed(item: Item) -> Item:
    kind = item.get("type") or "message"
    kept: Item = {**item, "type": kind}
    kept["id"] = item.get("id") or new_id(_PREFIXES.get(kind, "msg"))
    if kind != "reasoning":
        kept["status"] = item.get("status") or "completed"
    else:
        kept["summary"] = item.get("summary") or []
    if kind == "message" and isinstance(item.get("content"), str):
        kept["content"] = [_part(item.get("role") or "user", item["content"])]
    elif kind == "message" and item.get("role") == "assistant":
        bare: Item = {"annotations": [], "logprobs": []}
        kept["content"] = [
            bare | part if part.get("type") == "output_text" else part
            for part in item.get("content") or []
        ]
    elif kind == "message":
        kept["content"] = [
            {"detail": "auto"} | part if part.get("type") == "input_image" else part
            for part in item.get("content") or []
        ]
    return kept


def _part(role: str, text: str) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _as_item(kept: KeptMessage) -> Item:
    return {
        "id": f"msg_{kept.key}",
        "type": "message",
        "role": kept.message.role.value,
        "status": STATUSES[kept.state],
        "content": [_part(kept.message.role.value, kept.message.content)],
        "turn": kept.turn,
        "created_at": int(kept.created_at),
    }


def _is_by_model(item: Item) -> bool:
    if item["type"] == "message":
        return bool(item.get("role") == "assistant")
    return item["type"] in ("function_call", "custom_tool_call", "reasoning")


def _answer(items: list[Item], state: AnswerState) -> tuple[KeptMessage, ...]:
    return (_to_message(Role.ASSISTANT, items, state),) if items else ()


def _to_message(role: Role, items: list[Item], state: AnswerState) -> KeptMessage:
    texts = [_text(item) for item in items if item["type"] == "message"]
    thoughts = [_text(item) for item in items if item["type"] == "reasoning"]
    message = Message(role, "\n\n".join(filter(None, texts)), reasoning="\n\n".join(thoughts))
    return KeptMessage(0, 0, message, state, 0.0, json.dumps(items))


def _text(item: Item) -> str:
    parts = item.get("content") or []
    if isinstance(parts, str):
        return parts
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)
