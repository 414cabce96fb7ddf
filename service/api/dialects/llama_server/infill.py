"""llama-server's `/infill`: a gap in a text is filled, whole or as it is written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field
from starlette.responses import Response

from service.api.deps import ChatDep, PrincipalDep, RequestIdDep, SettingsDep
from service.api.dialects.llama_server.errors import to_error
from service.api.dialects.llama_server.schemas import ErrorReply
from service.api.errors import Problem
from service.api.fields import Text
from service.api.replies import Json, encode_json
from service.api.streaming import EventStream, while_connected
from service.chat.generate import collect
from service.chat.infill import InfillRequest
from service.domain.events import Event, Finished, FinishReason, TextDelta
from service.domain.sampling import Sampling

_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "seed")
_STOP_TYPES = {FinishReason.STOP: "eos", FinishReason.LENGTH: "limit"}

router = APIRouter(
    tags=["llama-server"],
    responses={
        "4XX": {"model": ErrorReply, "description": "The gap cannot be filled as it stands."},
        503: {"model": ErrorReply, "description": "No engine can take the request now."},
    },
)


class ExtraText(BaseModel):
    text: Text
    filename: Text | None = None


class InfillBody(BaseModel):
    """What stands before and after the gap. Unknown fields are ignored."""

    input_prefix: Text
    input_suffix: Text
    prompt: Text = Field("", description="What fills the gap goes on from here.")
    input_extra: list[ExtraText] | None = Field(None, description="Other text that may help.")
    model: Text | None = None
    n_predict: int | None = Field(None, description="At most so many tokens; -1: no limit.")
    stream: bool | None = None
    stop: Annotated[
        list[Text] | None,
        BeforeValidator(
            lambda stop: [stop] if isinstance(stop, str) else stop,
            json_schema_input_type=str | list[str] | None,
        ),
    ] = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    seed: int | None = None


class InfillReply(BaseModel):
    """`stop_type`: `eos` where the model ended, `word` at a stop string, `limit` else."""

    content: str
    stop: Literal[True]
    stop_type: Literal["eos", "word", "limit"]
    stopping_word: str
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int


@router.post("/infill", response_model=InfillReply)
async def infill(
    http_request: Request,
    body: InfillBody,
    chat: ChatDep,
    principal: PrincipalDep,
    settings: SettingsDep,
    request_id: RequestIdDep,
) -> Response:
    """Write what belongs between two texts; models that can't are named in the refusal."""
    request = to_infill_request(body, request_id)
    work = chat.fill_in(request, principal)
    generation = await while_connected(http_request.receive, work)
    name = generation.model.name
    if body.stream:
        frames = InfillFrames(name)
        return EventStream(generation, frames, settings.api.keepalive_comment_seconds)
    answer = await while_connected(http_request.receive, collect(generation))
    return Json(to_infill_reply(name, answer.text, answer.finished))


def to_infill_request(body: InfillBody, request_id: str) -> InfillRequest:
    """The dialect-neutral request. Raises `InvalidRequest`."""
    given = {name: value for name in _OPTIONS if (value := getattr(body, name)) is not None}
    if given.get("seed", 0) < 0:  # its clients' word for any
        del given["seed"]
    return InfillRequest(
        before=body.input_prefix,
        after=body.input_suffix,
        begun=body.prompt,
        context=tuple(extra.text for extra in body.input_extra or ()),
        model=body.model,
        sampling=Sampling(**given),
        max_tokens=None if body.n_predict == -1 else body.n_predict,
        stop=tuple(body.stop or ()),
        request_id=request_id,
    )


def to_infill_reply(model: str, text: str, finished: Finished) -> dict[str, Any]:
    word = finished.stop_sequence
    stop_type = "word" if word else _STOP_TYPES.get(finished.reason, "limit")
    return {
        "content": text,
        "stop": True,
        "stop_type": stop_type,
        "stopping_word": word or "",
        "model": model,
        "tokens_predicted": finished.usage.completion_tokens,
        "tokens_evaluated": finished.usage.prompt_tokens,
        "tokens_cached": finished.usage.cached_tokens,
    }


class InfillFrames:
    """One streamed answer; its last frame has no text and says how it ended."""

    def __init__(self, model: str) -> None:
        self._model = model

    def opening(self) -> bytes:
        return b""

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return _frame({"content": event.text, "stop": False})
        if isinstance(event, Finished):
            return _frame(to_infill_reply(self._model, "", event))
        return b""

    def failure(self, problem: Problem) -> bytes:
        return _frame(to_error(problem)[1])


def _frame(value: object) -> bytes:
    return b"data: " + encode_json(value) + b"\n\n"
