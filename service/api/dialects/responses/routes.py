"""The routes of Responses."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.api.deps import Parts, PartsDep, PrincipalDep, RequestIdDep, ResponsesDep
from service.api.dialects.responses.compaction import to_compaction
from service.api.dialects.responses.following import Followed
from service.api.dialects.responses.replies import Drafted, ResponseFrames, shown
from service.api.dialects.responses.schemas import (
    CompactBody,
    CompactReply,
    DeletedReply,
    ErrorReply,
    InputTokensReply,
    ItemList,
    ResponseBody,
    ResponseReply,
)
from service.api.dialects.responses.tools import Toolbox, to_toolbox
from service.api.dialects.responses.translate import (
    refuse_contradictions,
    to_chat_request,
    to_items,
)
from service.api.items import Item, items_of, new_id, page_of
from service.api.replies import Json
from service.api.streaming import EventStream, while_connected
from service.chat.compaction import to_summary_request
from service.chat.generate import collect
from service.chat.responses import KeptGeneration
from service.domain.access import Principal
from service.domain.conversation import AnswerState, ResponseState
from service.domain.errors import ConversationLocked, InvalidRequest

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request cannot be answered as it stands."},
    503: {"model": ErrorReply, "description": "No engine can take the request now."},
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response; with `stream`, events up to the one that ends it.",
        "content": {"text/event-stream": {}},
    }
}
router = APIRouter(prefix="/v1/responses", tags=["responses"], responses=_REFUSALS)


@router.post("", response_model=ResponseReply, responses=_EVENTS)
async def create_response(
    http_request: Request,
    body: ResponseBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer, going on from an earlier response or a conversation if one is named; kept unless
    `store` is false. With `background` the answer is written whoever waits for it."""
    refuse_contradictions(body)
    new, toolbox, name = await _new_items(body, parts, principal), to_toolbox(body), new_id("resp")
    receive = http_request.receive
    async with AsyncExitStack() as on_failure:
        if body.conversation_id:
            held = parts.items.held(principal, body.conversation_id, name)
            await on_failure.enter_async_context(held)
        said = [*await _history(body, parts, principal), *new]
        request = to_chat_request(body, toolbox, said, request_id)
        generation = await while_connected(receive, parts.chat.start(request, principal))
        drafted = Drafted(body, toolbox, new, generation.model, name)
        holding = on_failure.pop_all()
    seconds, headers = parts.settings.api.keepalive_comment_seconds, toolbox.headers
    if body.background:
        begun = drafted.reply()
        await parts.responses.begin(generation, drafted, principal, holding)
        followed = Followed(parts.responses.follow(principal, drafted.id), 0, seconds)
        return followed.stream(headers) if body.stream else Json(begun, headers=headers)
    kept = KeptGeneration(generation, parts.responses, principal, drafted, holding)
    if body.stream:
        return EventStream(kept, ResponseFrames(drafted), seconds, headers)
    await while_connected(receive, collect(kept))
    return Json(drafted.reply(), headers=headers)


@router.post("/compact", response_model=CompactReply)
async def compact_response(
    http_request: Request,
    body: CompactBody,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Make a conversation short: what the model said and did becomes a summary, by the model."""
    whole = ResponseBody.model_validate(body.model_dump())
    new = [] if body.input is None else await _new_items(whole, parts, principal)
    said = [*await _history(whole, parts, principal), *new]
    request = to_summary_request(to_chat_request(whole, Toolbox(), said, request_id))
    generation = await while_connected(http_request.receive, parts.chat.start(request, principal))
    answer = await while_connected(http_request.receive, collect(generation))
    return Json(to_compaction(said, answer.text, answer.finished.usage))


@router.post("/input_tokens", response_model=InputTokensReply)
async def count_tokens(
    body: ResponseBody, parts: PartsDep, principal: PrincipalDep, request_id: RequestIdDep
) -> Response:
    """How many tokens the request is for the model, with all that it goes on from."""
    said = [*await _history(body, parts, principal), *await _new_items(body, parts, principal)]
    request = to_chat_request(body, to_toolbox(body), said, request_id)
    count = await parts.chat.count_tokens(request)
    return Json({"object": "response.input_tokens", "input_tokens": count})


@router.get("/{response_id}", response_model=ResponseReply, responses=_EVENTS)
async def retrieve_response(
    parts: PartsDep,
    principal: PrincipalDep,
    response_id: str,
    stream: bool = False,
    starting_after: Annotated[
        int, Query(ge=-1, description="With `stream`: the last event that is already there.")
    ] = -1,
) -> Response:
    """The response as it is now; with `stream`, the events that told and tell of it, from any
    worker, up to its end."""
    kept = (await parts.responses.chain(principal, response_id))[-1]
    if not stream:
        return Json(shown(kept))
    number = starting_after + 1
    told = parts.responses.follow(principal, response_id, number)
    return Followed(told, number, parts.settings.api.keepalive_comment_seconds).stream()


@router.delete("/{response_id}", response_model=DeletedReply)
async def delete_response(
    responses: ResponsesDep, principal: PrincipalDep, response_id: str
) -> Response:
    """Forget it; what goes on from it loses what came before."""
    await responses.forget(principal, response_id)
    return Json({"id": response_id, "object": "response", "deleted": True})


@router.post("/{response_id}/cancel", response_model=ResponseReply)
async def cancel_response(
    responses: ResponsesDep, principal: PrincipalDep, response_id: str
) -> Response:
    """End an answer in the background; one that has ended stays as it is. Those in the foreground
    end when their client goes away."""
    kept = (await responses.chain(principal, response_id))[-1]
    if not json.loads(kept.reply)["background"]:
        raise InvalidRequest(
            f"The response `{response_id[:200]}` is not in the background; only such can be "
            "cancelled."
        )
    return Json(shown(await responses.cancel(principal, response_id)))


@router.get("/{response_id}/input_items", response_model=ItemList)
async def list_input_items(
    responses: ResponsesDep,
    principal: PrincipalDep,
    response_id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """What was new in its request."""
    kept = (await responses.chain(principal, response_id))[-1]
    return Json(page_of(json.loads(kept.input), limit=limit, order=order, after=after))


async def _new_items(body: ResponseBody, parts: Parts, principal: Principal) -> list[Item]:
    """The input, with what it refers to in its place."""
    items = to_items(body)
    for index, item in enumerate(body.input if isinstance(body.input, list) else ()):
        if item.is_reference:
            where = f"input[{index}].id"
            items[index] = await parts.responses.item(principal, item.id or "", where)
    return items


async def _history(body: ResponseBody, parts: Parts, principal: Principal) -> list[Item]:
    """What the request goes on from."""
    refuse_contradictions(body)
    history: list[Item] = []
    if body.previous_response_id:
        param = "previous_response_id"
        for kept in await parts.responses.chain(principal, body.previous_response_id, param):
            if kept.state is ResponseState.WRITING:
                raise InvalidRequest(
                    f"The response `{kept.id}` is still being written; wait for its end, or "
                    "cancel it.",
                    param=param,
                )
            history += json.loads(kept.input)
            history += json.loads(kept.reply)["output"]
    elif body.conversation_id:
        said = await parts.items.messages(principal, body.conversation_id)
        if any(one.state is AnswerState.WRITING for one in said):
            raise ConversationLocked.named(body.conversation_id)
        history = items_of(said)
    return history
