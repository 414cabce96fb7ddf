"""OpenAI's routes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.deps import ChatDep, ModelsDep, PrincipalDep, RequestIdDep, SettingsDep
from service.api.dialects.openai.replies import (
    Completion,
    CompletionFrames,
    to_model_reply,
    to_reply,
)
from service.api.dialects.openai.schemas import (
    ChatCompletionBody,
    ChatCompletionChunk,
    ChatCompletionReply,
    ErrorReply,
    ModelList,
    ModelReply,
)
from service.api.dialects.openai.translate import to_chat_request, wants_reasoning
from service.api.replies import Json
from service.api.streaming import EventStream, while_connected
from service.chat.generate import collect
from service.domain.errors import ModelNotFound

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request cannot be answered as it stands."},
    503: {"model": ErrorReply, "description": "No engine can take the request now."},
}
router = APIRouter(prefix="/v1", tags=["openai"], responses=_REFUSALS)


@router.post(
    "/chat/completions",
    response_model=ChatCompletionReply,
    responses={
        200: {
            "description": "The answer; with `stream`, chunks as events, then `data: [DONE]`.",
            "content": {
                "text/event-stream": {"schema": ChatCompletionChunk.model_json_schema()},
            },
        }
    },
)
async def create_chat_completion(
    http_request: Request,
    body: ChatCompletionBody,
    chat: ChatDep,
    principal: PrincipalDep,
    settings: SettingsDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer a chat, as a stream when the body asks for one."""
    request = to_chat_request(body, request_id)
    with_reasoning = wants_reasoning(body)
    generation = await while_connected(http_request.receive, chat.start(request, principal))
    completion = Completion(generation.model)
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        frames = CompletionFrames(completion, with_usage=with_usage, with_reasoning=with_reasoning)
        return EventStream(generation, frames, settings.api.keepalive_comment_seconds)
    answer = await while_connected(http_request.receive, collect(generation))
    return Json(to_reply(completion, answer, with_reasoning=with_reasoning))


@router.get("/models", response_model=ModelList)
async def list_models(models: ModelsDep) -> Response:
    """The models that are being served; empty while there is none."""
    return Json({"object": "list", "data": [to_model_reply(model) for model in models]})


@router.get("/models/{model_id:path}", response_model=ModelReply)
async def retrieve_model(model_id: str, models: ModelsDep) -> Response:
    model = next((model for model in models if model.name == model_id), None)
    if model is None:
        raise ModelNotFound(f"The model `{model_id[:200]}` does not exist.", param="model")
    return Json(to_model_reply(model))
