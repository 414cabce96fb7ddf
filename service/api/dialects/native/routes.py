"""The native routes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import FileResponse, Response

import service.web
from service import __version__
from service.api.deps import ConversationsDep, PartsDep, PrincipalDep, RequestIdDep
from service.api.dialects.native.frames import JsonFrames, TextFrames
from service.api.dialects.native.schemas import (
    ChatBody,
    ClearedReply,
    Detail,
    MessageReply,
    ResetBody,
    SessionBody,
    SessionList,
    StreamFrame,
    UserInputReply,
)
from service.api.dialects.native.translate import (
    DEFAULT_SESSION,
    MESSAGE,
    to_system_prompt,
    to_turn,
    vocabulary_of,
)
from service.api.replies import Json
from service.api.streaming import EventStream, Frames, while_connected
from service.chat.conversations import ConversationGeneration
from service.chat.detached import Detached
from service.chat.generate import collect
from service.domain.conversation import valid_conversation_id
from service.domain.errors import ConversationNotFound

STATIC = Path(service.web.__file__).parent / "static"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Detail, "description": "The request cannot be answered as it stands."},
    413: {"model": Detail, "description": "The body is too large."},
    422: {"model": Detail, "description": "A field is missing or out of range."},
    503: {"model": Detail, "description": "No engine can take the request now."},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Detail, "description": "There is no such session."}
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "With `message`, or when JSON is asked for: JSON events. With `user_input`: "
        "the text itself after each `data: `, then `data: [END]`.",
        "content": {"text/event-stream": {"schema": StreamFrame.model_json_schema()}},
    }
}
router = APIRouter(tags=["native"])


@router.head("/", include_in_schema=False)
@router.get("/")
async def index(http_request: Request) -> Response:
    """The page for browsers, facts for everybody else."""
    vary = {"Vary": "Accept"}
    if "text/html" in http_request.headers.get("accept", ""):
        return FileResponse(STATIC / "index.html", headers={**vary, "Cache-Control": "no-cache"})
    facts = {
        "status": "ok",
        "message": "Chatbot API is running.",
        "service": "LLaMA Chat API",
        "version": __version__,
        "docs": "/docs",
        "health": "/health",
    }
    return Json(facts, headers=vary)


@router.post("/chat", response_model=UserInputReply | MessageReply, responses=_REFUSALS)
async def create_reply(
    http_request: Request,
    body: ChatBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer one message, going on with its session."""
    turn = to_turn(body, request_id, to_system_prompt(body, parts.settings.chat, streamed=False))
    generation = await while_connected(
        http_request.receive, parts.conversations.start(turn, principal)
    )
    answer = await while_connected(http_request.receive, collect(generation))
    usage = answer.finished.usage
    headers = _headers(generation) | {"X-Tokens-Completion": str(usage.completion_tokens)}
    if vocabulary_of(body) is not MESSAGE:
        return Json({"reply": answer.text}, headers=headers)
    reply = {
        "response": answer.text,
        "session_id": generation.conversation_id,
        "tokens_used": usage.total_tokens,
    }
    return Json(reply, headers=headers)


def wants_json(
    http_request: Request,
    wire_format: Annotated[Literal["json", "text"] | None, Query(alias="format")] = None,
) -> bool:
    """Whether a `user_input` asks for JSON frames: with `?format=json`, or in Accept."""
    if wire_format is not None:
        return wire_format == "json"
    return "application/json" in http_request.headers.get("accept", "")


@router.post(
    "/chat/stream",
    status_code=200,
    response_model=None,
    response_class=EventStream,
    responses=_REFUSALS | _EVENTS,
)
async def stream_reply(
    http_request: Request,
    body: ChatBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
    as_json: Annotated[bool, Depends(wants_json)],
) -> Response:
    """Answer one message, token by token."""
    turn = to_turn(body, request_id, to_system_prompt(body, parts.settings.chat, streamed=True))
    generation = await while_connected(
        http_request.receive, parts.conversations.start(turn, principal)
    )
    frames: Frames = TextFrames()
    if as_json or vocabulary_of(body) is MESSAGE:
        frames = JsonFrames(generation.conversation_id)
    seconds = parts.settings.api.keepalive_comment_seconds
    return EventStream(generation, frames, seconds, headers=_headers(generation))


@router.post("/chat/clear", response_model=ClearedReply, responses=_REFUSALS | _UNKNOWN)
async def clear_session(
    body: SessionBody, conversations: ConversationsDep, principal: PrincipalDep
) -> Response:
    """Forget a session's history."""
    await conversations.clear(valid_conversation_id(body.session_id), principal)
    return Json({"status": "cleared", "session_id": body.session_id})


@router.post("/reset", response_model=ClearedReply)
async def reset(
    conversations: ConversationsDep, principal: PrincipalDep, body: ResetBody | None = None
) -> Response:
    """Start over: forget the default session, or the one that is named, if there is one."""
    session_id = valid_conversation_id((body and body.session_id) or DEFAULT_SESSION)
    with suppress(ConversationNotFound):  # nothing to forget is what the caller wants
        await conversations.clear(session_id, principal)
    return Json({"status": "cleared", "session_id": session_id})


@router.get("/sessions", response_model=SessionList)
async def list_sessions(conversations: ConversationsDep, principal: PrincipalDep) -> Response:
    """The caller's sessions."""
    ids = await conversations.list_ids(principal)
    return Json({"sessions": ids, "count": len(ids)})


def _headers(generation: ConversationGeneration | Detached) -> dict[str, str]:
    """What the older shapes have no field for."""
    headers = {
        "X-Session-Id": generation.conversation_id,
        "X-Tokens-Prompt": str(generation.prompt_tokens),
    }
    if generation.num_dropped_messages:
        headers["X-Context-Dropped-Messages"] = str(generation.num_dropped_messages)
    return headers
