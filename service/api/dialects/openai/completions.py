"""OpenAI's older completions, of a text without a template: wire bodies, translation and route."""

from __future__ import annotations

import uuid
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
    MAX_TOKEN_ID,
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
from service.chat import words
from service.chat.choices import start_choices
from service.chat.generate import Generation
from service.chat.infill import InfillRequest
from service.domain.access import Principal
from service.domain.chat import TextRequest
from service.domain.errors import InvalidRequest, Unsupported
from service.domain.sampling import Sampling
from service.ipc.client import Engines

_DEFAULT_MAX_TOKENS = 16  # the vendor's
_MAX_LOGPROBS = 5  # the vendor's


def _to_prompts(given: object) -> object:
    """One prompt as the list of one that it is."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        return given
    if given and all(map(_is_number, given)):
        return [given]
    for item in given:
        if not isinstance(item, str) and not (
            isinstance(item, list) and all(map(_is_number, item))
        ):
            raise PydanticCustomError(
                "prompt_type",
                "Send a string, a list of strings, a list of token ids, or a list of such lists",
            )
    return given


def _is_number(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


class CompletionBody(SamplingOptions):
    """Texts to go on with, as they stand. Unknown fields are ignored."""

    prompt: Annotated[
        list[Text | list[int]],
        BeforeValidator(
            _to_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ]
    model: Text | None = Field(None, description="The served model when absent.")
    max_tokens: int | None = Field(None, description="At most so many new tokens; 16 when absent.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = Field(None, description="Begin each answer with its prompt.")
    logprobs: int | None = Field(
        None, description="Tell how likely tokens were, and 0 to 5 others."
    )
    suffix: Text | None = Field(None, description="Fill the gap between the prompt and this.")
    best_of: int | None = Field(None, description="Understood well enough to be refused by name.")


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
        seeded = replace(request, sampling=sampling)
        if not body.suffix:
            return await parts.chat.go_on(seeded, who)
        try:
            return await parts.chat.fill_in(to_infill_request(seeded, body.suffix), who)
        except Unsupported as error:
            error.param = error.param or "suffix"
            raise

    starts = [partial(start, request, principal) for request in requests]
    starting = start_choices(starts, requests[0].sampling, num)
    choices = await while_connected(http_request.receive, starting)
    completion = Completion(choices.generations[0].model, id=f"cmpl-{uuid.uuid4().hex}")
    texts = [await _to_text(request, parts.engines) for request in requests if body.echo]
    echoes = [text for text in texts or [""] * len(requests) for _ in range(num)]
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
    if body.suffix and body.logprobs is not None:
        raise Unsupported(
            "suffix and logprobs do not go together; leave one of them out.", param="suffix"
        )
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
        TextRequest(
            _to_prompt(prompt, index),
            body.model,
            sampling,
            max_tokens,
            stop,
            body.logprobs,
            request_id,
        )
        for index, prompt in enumerate(body.prompt)
    ]


def to_infill_request(request: TextRequest, suffix: str) -> InfillRequest:
    """The gap between the prompt and `suffix`. Raises `Unsupported` for token ids."""
    if not isinstance(request.prompt, str):
        raise Unsupported("suffix goes together with text, not with token ids.", param="suffix")
    return InfillRequest(
        before=request.prompt,
        after=suffix,
        model=request.model,
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        request_id=request.request_id,
    )


def _to_prompt(prompt: str | list[int], index: int) -> str | tuple[int, ...]:
    """Which numbers are token ids, the engine knows; but they have to fit into its words."""
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        raise InvalidRequest(f"prompt[{index}] is empty.", param=f"prompt[{index}]")
    wrong = next((i for i in prompt if not 0 <= i <= MAX_TOKEN_ID), None)
    if wrong is not None:
        raise InvalidRequest(f"{wrong} is no token id.", param="prompt")
    return tuple(prompt)


def _to_num(body: CompletionBody, limit: int) -> int:
    num, prompts = to_num_choices(body, limit), len(body.prompt)
    if num * prompts > limit:
        raise InvalidRequest(
            f"{prompts} prompts with {num} answers each ask for {num * prompts} answers; at most "
            f"{limit} are given to one request.",
            param="prompt" if num == 1 else "n",
        )
    return num


async def _to_text(request: TextRequest, engines: Engines) -> str:
    """The prompt as it is echoed."""
    if isinstance(request.prompt, str):
        return request.prompt
    return await words.detokenize(engines, request.prompt, request.model)
