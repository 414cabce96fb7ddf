"""OpenAI's routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.deps import ChatDep, ModelsDep, PrincipalDep, RequestIdDep, SettingsDep
from service.api.dialects.openai.options import to_num_choices
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
from service.chat.choices import start_choices
from service.chat.generate import Generation
from service.domain.errors import ModelNotFound
from service.domain.sampling import Sampling

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
    num = to_num_choices(body, settings.chat.max_choices)

    async def start(sampling: Sampling) -> Generation:
        return await chat.start(replace(request, sampling=sampling), principal)

    starting = start_choices([start], request.sampling, num)
    choices = await while_connected(http_request.receive, starting)
    completion = Completion(choices.generations[0].model)
    if body.stream:
        frames = CompletionFrames(
            completion,
            num_choices=num,
            with_usage=bool(body.stream_options and body.stream_options.include_usage),
            with_reasoning=with_reasoning,
        )
        events = choices if num > 1 else choices.generations[0]
        return EventStream(events, frames, settings.api.keepalive_comment_seconds)
    answers = await while_connected(http_request.receive, choices.answers())
    usage = choices.usage([answer.finished for answer in answers])
    with_logprobs = request.logprobs is not None
    return Json(
        to_reply(
            completion, answers, usage, with_reasoning=with_reasoning, with_logprobs=with_logprobs
        )
    )


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
