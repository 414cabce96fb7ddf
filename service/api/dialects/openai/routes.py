"""OpenAI's routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.deps import ModelsDep, Parts, PartsDep, PrincipalDep, RequestIdDep
from service.api.dialects.openai.calls import call_words
from service.api.dialects.openai.options import to_num_choices
from service.api.dialects.openai.reasoning import Thoughts, to_thoughts
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
    InputTokensReply,
    ModelList,
    ModelReply,
)
from service.api.dialects.openai.tools import hosted_tools
from service.api.dialects.openai.translate import to_chat_request
from service.api.hosted_tools import disclosed
from service.api.replies import Json
from service.api.streaming import EventStream, while_connected
from service.chat.choices import start_choices
from service.chat.generate import Generation
from service.domain.access import Principal
from service.domain.chat import ChatRequest
from service.domain.errors import ModelNotFound
from service.domain.sampling import Sampling

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request cannot be answered as it stands."},
    503: {"model": ErrorReply, "description": "No engine can take the request now."},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, chunks as events, then `data: [DONE]`.",
        "content": {"text/event-stream": {"schema": ChatCompletionChunk.model_json_schema()}},
    }
}
router = APIRouter(prefix="/v1", tags=["openai"], responses=_REFUSALS)


@router.post("/chat/completions", response_model=ChatCompletionReply, responses=_ANSWERS)
async def create_chat_completion(
    http_request: Request,
    body: ChatCompletionBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer a chat, as a stream when the body asks for one."""
    request = to_chat_request(body, request_id)
    return await _answer(http_request, body, request, parts, principal, to_thoughts(body))


@router.post("/chat/completions/think", response_model=ChatCompletionReply, responses=_ANSWERS)
async def create_thoughtful_chat_completion(
    http_request: Request,
    body: ChatCompletionBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer a chat after thinking, unless the body says otherwise; `content` begins with the
    thought, between tags."""
    request = to_chat_request(body, request_id)
    thoughtful = replace(request, thinking=request.thinking is not False)
    return await _answer(http_request, body, thoughtful, parts, principal, Thoughts.IN_TEXT)


@router.post("/chat/completions/input_tokens", response_model=InputTokensReply)
async def count_chat_tokens(
    body: ChatCompletionBody, parts: PartsDep, request_id: RequestIdDep
) -> Response:
    """How many tokens the chat is for the model, tools and all, exactly."""
    count = await parts.chat.count_tokens(to_chat_request(body, request_id))
    return Json({"object": "response.input_tokens", "input_tokens": count})


async def _answer(
    http_request: Request,
    body: ChatCompletionBody,
    request: ChatRequest,
    parts: Parts,
    principal: Principal,
    thoughts: Thoughts,
) -> Response:
    num = to_num_choices(body, parts.settings.chat.max_choices)
    calls = call_words(body)

    async def start(sampling: Sampling) -> Generation:
        return await parts.chat.start(replace(request, sampling=sampling), principal)

    starting = start_choices([start], request.sampling, num)
    choices = await while_connected(http_request.receive, starting)
    completion = Completion(choices.generations[0].model)
    dropped = _disclosed(choices.generations[0].num_dropped_messages)
    headers = {**dropped, **disclosed(hosted_tools(body))}
    if body.stream:
        frames = CompletionFrames(
            completion,
            calls,
            num_choices=num,
            with_usage=bool(body.stream_options and body.stream_options.include_usage),
            thoughts=thoughts,
        )
        events = choices if num > 1 else choices.generations[0]
        return EventStream(events, frames, parts.settings.api.keepalive_comment_seconds, headers)
    answers = await while_connected(http_request.receive, choices.answers())
    usage = choices.usage([answer.finished for answer in answers])
    reply = to_reply(
        completion,
        answers,
        usage,
        thoughts=thoughts,
        with_logprobs=request.logprobs is not None,
        calls=calls,
    )
    return Json(reply, headers=headers)


def _disclosed(num_dropped: int) -> dict[str, str]:
    """What was left out of the prompt is said, if anything was."""
    return {"X-Context-Dropped-Messages": str(num_dropped)} if num_dropped else {}


@router.get("/models", response_model=ModelList)
async def list_models(models: ModelsDep) -> Response:
    """The models that answer, one that is asleep among them; empty while there is none."""
    return Json({"object": "list", "data": [to_model_reply(model) for model in models]})


@router.get("/models/{model_id:path}", response_model=ModelReply)
async def retrieve_model(model_id: str, models: ModelsDep) -> Response:
    model = next((model for model in models if model.name == model_id), None)
    if model is None:
        raise ModelNotFound(f"The model `{model_id[:200]}` does not exist.", param="model")
    return Json(to_model_reply(model))
