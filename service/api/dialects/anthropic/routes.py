"""Anthropic's routes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from service.api.deps import ChatDep, CurrentModelDep, PartsDep, PrincipalDep, RequestIdDep
from service.api.dialects.anthropic.errors import to_error
from service.api.dialects.anthropic.frames import PING, MessageFrames
from service.api.dialects.anthropic.replies import (
    Reply,
    Thoughts,
    to_message,
    to_model_page,
    to_model_reply,
)
from service.api.dialects.anthropic.schemas import (
    CountTokensBody,
    CountTokensReply,
    MessagesBody,
    MessagesEvent,
    MessagesReply,
    RefusalReply,
    ThinkingBody,
)
from service.api.dialects.anthropic.tools import hosted_tools
from service.api.dialects.anthropic.translate import (
    hides_thoughts,
    to_chat_request,
    to_counted_request,
    wants_thoughts,
)
from service.api.errors import Problem
from service.api.hosted_tools import disclosed
from service.api.replies import Json
from service.api.streaming import EventStream, while_connected
from service.chat.generate import collect

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": RefusalReply, "description": "The request cannot be answered as it stands."},
    "5XX": {"model": RefusalReply, "description": "No engine can take the request now."},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, as named events.",
        "content": {"text/event-stream": {"schema": MessagesEvent.model_json_schema()}},
    }
}


class VendorRoute(APIRoute):
    """A route that is there only for clients that say they are the vendor's; another dialect has
    the same path for everybody else."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and "anthropic-version" not in Headers(scope=scope):
            return Match.NONE, {}
        return super().matches(scope)


router = APIRouter(tags=["anthropic"], responses=_REFUSALS)
models = APIRouter(prefix="/v1", route_class=VendorRoute, include_in_schema=False)


@router.post("/v1/messages", response_model=MessagesReply, responses=_ANSWERS)
@router.post("/v1/messages/clean", response_model=MessagesReply, responses=_ANSWERS)
async def create_message(
    http_request: Request,
    body: MessagesBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer messages, as a stream when the body asks for one."""
    request = to_chat_request(body, request_id)
    generation = await while_connected(http_request.receive, parts.chat.start(request, principal))
    headers = disclosed(hosted_tools(body))
    reply = Reply(generation.model, body.max_tokens, _thoughts(body))
    if body.stream:
        frames = MessageFrames(reply, generation.prompt_tokens, request_id)
        seconds = parts.settings.api.keepalive_comment_seconds
        return EventStream(generation, frames, seconds, headers, keepalive=PING)
    answer = await while_connected(http_request.receive, collect(generation))
    return Json(to_message(reply, answer), headers=headers)


@router.post("/v1/messages/think", response_model=MessagesReply, responses=_ANSWERS)
async def create_thoughtful_message(
    http_request: Request,
    body: MessagesBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer messages after thinking, and show the thoughts, whatever the body says of them."""
    thoughtful = body.model_copy(update={"thinking": ThinkingBody(type="enabled")})
    return await create_message(http_request, thoughtful, parts, principal, request_id)


@router.post("/v1/messages/count_tokens", response_model=CountTokensReply)
async def count_message_tokens(
    body: CountTokensBody, chat: ChatDep, request_id: RequestIdDep
) -> Response:
    """How many tokens the messages are for the model, exactly."""
    count = await chat.count_tokens(to_counted_request(body, request_id))
    return Json({"input_tokens": count})


@models.get("/models")
async def list_vendor_models(model: CurrentModelDep) -> Response:
    return Json(to_model_page(model))


@models.get("/models/{model_id:path}")
async def retrieve_vendor_model(
    model_id: str, model: CurrentModelDep, request_id: RequestIdDep
) -> Response:
    if model is None or model.name != model_id:
        # Raised, it would be told in the words of the dialect that has this path.
        message = f"The model `{model_id[:200]}` does not exist."
        problem = Problem(404, "model_not_found", message, request_id=request_id)
        status, refusal = to_error(problem)
        return Json(refusal, status)
    return Json(to_model_reply(model))


router.include_router(models)


def _thoughts(body: MessagesBody) -> Thoughts:
    if not wants_thoughts(body):
        return Thoughts.LEFT_OUT
    return Thoughts.EMPTIED if hides_thoughts(body) else Thoughts.SHOWN
