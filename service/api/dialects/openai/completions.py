"""OpenAI's older completions, of a text without a template: wire bodies, translation and route."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from service.api.deps import PartsDep, PrincipalDep, RequestIdDep
from service.api.dialects.openai.completion_replies import TextFrames, to_text_reply
from service.api.dialects.openai.options import (
    SamplingOptions,
    to_max_tokens,
    to_num_choices,
    to_sampling,
    to_stop,
)
from service.api.dialects.openai.replies import Completion
from service.api.dialects.openai.schemas import CompletionUsage, ErrorReply, StreamOptions
from service.api.fields import Text
from service.api.replies import Json
from service.api.streaming import EventStream, while_connected
from service.chat.choices import start_choices
from service.chat.generate import Generation
from service.domain.access import Principal
from service.domain.chat import TextRequest
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.sampling import Sampling

_DEFAULT_MAX_TOKENS = 16  # the vendor's
_MAX_LOGPROBS = 5  # the vendor's


def _to_texts(given: object) -> object:
    """One text as the list of one that it is."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and not all(isinstance(item, str) for item in given):
        raise PydanticCustomError(
            "prompt_type", "Send text: a string, or a list of strings; token ids are not supported"
        )
    return given


class CompletionBody(SamplingOptions):
    """Texts to go on with, as they stand. Unknown fields are ignored."""

    prompt: Annotated[
        list[Text], BeforeValidator(_to_texts, json_schema_input_type=str | list[str])
    ]
    model: Text | None = Field(None, description="The served model when absent.")
    max_tokens: int | None = Field(None, description="At most so many new tokens; 16 when absent.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = Field(None, description="Begin each answer with its prompt.")
    logprobs: int | None = Field(
        None, description="Tell how likely tokens were, and 0 to 5 others."
    )
    # Understood well enough to be refused by name.
    suffix: Text | None = None
    best_of: int | None = None


class TextLogprobsReply(BaseModel):
    """Token by token: its text, its logarithm, the likeliest others, and where it begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    text: str
    index: int
    logprobs: TextLogprobsReply | None
    finish_reason: Literal["stop", "length"] | None


class TextCompletionReply(BaseModel):
    """The answer, or with `stream` one frame of it."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None


router = APIRouter(
    prefix="/v1",
    tags=["openai"],
    responses={
        "4XX": {"model": ErrorReply, "description": "The request cannot be answered as it stands."},
        503: {"model": ErrorReply, "description": "No engine can take the request now."},
    },
)


@router.post("/completions", response_model=TextCompletionReply)
async def create_completion(
    http_request: Request,
    body: CompletionBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Go on with texts, without a chat template; as a stream when the body asks for one."""
    requests = to_text_requests(body, request_id)
    num = _to_num(body, parts.settings.chat.max_choices)

    async def start(request: TextRequest, who: Principal, sampling: Sampling) -> Generation:
        return await parts.chat.go_on(replace(request, sampling=sampling), who)

    starts = [partial(start, request, principal) for request in requests]
    starting = start_choices(starts, requests[0].sampling, num)
    choices = await while_connected(http_request.receive, starting)
    completion = Completion(choices.generations[0].model, id=f"cmpl-{uuid.uuid4().hex}")
    echoes = _echoes(body, requests, num)
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        frames = TextFrames(completion, echoes, with_usage=with_usage)
        events = choices if len(echoes) > 1 else choices.generations[0]
        return EventStream(events, frames, parts.settings.api.keepalive_comment_seconds)
    answers = await while_connected(http_request.receive, choices.answers())
    usage = choices.usage([answer.finished for answer in answers])
    with_logprobs = body.logprobs is not None
    return Json(to_text_reply(completion, answers, echoes, usage, with_logprobs=with_logprobs))


def to_text_requests(body: CompletionBody, request_id: str) -> list[TextRequest]:
    """One dialect-neutral request for each prompt. Raises `InvalidRequest` or `Unsupported`."""
    if not body.prompt:
        raise InvalidRequest("prompt is empty; send at least one text.", param="prompt")
    if body.suffix:
        raise Unsupported("suffix is not supported; leave it out.", param="suffix")
    if body.best_of not in (None, 1, body.n):
        raise Unsupported(
            f"best_of is {body.best_of}; answers are not compared, leave it out.", param="best_of"
        )
    if body.logprobs is not None and not 0 <= body.logprobs <= _MAX_LOGPROBS:
        raise InvalidRequest(
            f"logprobs is {body.logprobs}; it must be between 0 and {_MAX_LOGPROBS}.",
            param="logprobs",
        )
    if body.echo and body.logprobs is not None:
        raise Unsupported(
            "echo and logprobs together ask how likely the prompt is, which is not supported; "
            "leave one of them out.",
            param="echo",
        )
    sampling, stop = to_sampling(body), to_stop(body.stop)
    max_tokens = to_max_tokens(body, "max_tokens")
    if max_tokens is None and body.n_predict is None:
        max_tokens = _DEFAULT_MAX_TOKENS
    return [
        TextRequest(prompt, body.model, sampling, max_tokens, stop, body.logprobs, request_id)
        for prompt in body.prompt
    ]


def _to_num(body: CompletionBody, limit: int) -> int:
    num, prompts = to_num_choices(body, limit), len(body.prompt)
    if num * prompts > limit:
        raise InvalidRequest(
            f"{prompts} prompts with {num} answers each ask for {num * prompts} answers; at most "
            f"{limit} are given to one request.",
            param="prompt" if num == 1 else "n",
        )
    return num


def _echoes(body: CompletionBody, requests: Sequence[TextRequest], num: int) -> list[str]:
    """What each answer begins with."""
    return [request.prompt if body.echo else "" for request in requests for _ in range(num)]
