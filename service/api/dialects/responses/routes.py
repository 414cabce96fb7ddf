"""The routes of Responses."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.api.deps import Parts, PartsDep, PrincipalDep, RequestIdDep, ResponsesDep
from service.api.dialects.responses.replies import Drafted, ResponseFrames
from service.api.dialects.responses.schemas import (
    DeletedReply,
    ErrorReply,
    InputTokensReply,
    ItemList,
    ResponseBody,
    ResponseReply,
)
from service.api.dialects.responses.translate import Item, to_chat_request, to_items
from service.api.replies import Json
from service.api.streaming import EventStream, while_connected
from service.chat.generate import collect
from service.chat.responses import KeptGeneration
from service.domain.access import Principal
from service.domain.chat import ChatRequest
from service.domain.errors import InvalidRequest, Unsupported

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request cannot be answered as it stands."},
    503: {"model": ErrorReply, "description": "No engine can take the request now."},
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response; with `stream`, events up to `response.completed`.",
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
    """Answer, going on from an earlier response if one is named; kept unless `store` is false."""
    new = to_items(body)
    request = await _to_request(body, new, parts, principal, request_id)
    generation = await while_connected(http_request.receive, parts.chat.start(request, principal))
    drafted = Drafted(body, new, generation.model)
    kept = KeptGeneration(generation, parts.responses, principal, drafted.describe)
    if body.stream:
        seconds = parts.settings.api.keepalive_comment_seconds
        return EventStream(kept, ResponseFrames(drafted), seconds)
    await while_connected(http_request.receive, collect(kept))
    return Json(drafted.final)


@router.post("/input_tokens", response_model=InputTokensReply)
async def count_tokens(
    body: ResponseBody, parts: PartsDep, principal: PrincipalDep, request_id: RequestIdDep
) -> Response:
    """How many tokens the request is for the model, with all that it goes on from."""
    request = await _to_request(body, to_items(body), parts, principal, request_id)
    count = await parts.chat.count_tokens(request)
    return Json({"object": "response.input_tokens", "input_tokens": count})


@router.get("/{response_id}", response_model=ResponseReply)
async def retrieve_response(
    responses: ResponsesDep, principal: PrincipalDep, response_id: str, stream: bool = False
) -> Response:
    if stream:
        raise Unsupported(
            "stream is only supported while a response is created; leave it out.", param="stream"
        )
    kept = (await responses.chain(principal, response_id))[-1]
    return Json(json.loads(kept.reply))


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
    """Only responses in the background can be cancelled so; closing a stream cancels others."""
    await responses.chain(principal, response_id)
    raise InvalidRequest(
        f"The response `{response_id[:200]}` is not in the background; only such can be cancelled."
    )


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
    items: list[Item] = json.loads(kept.input)
    if order == "desc":
        items.reverse()
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise InvalidRequest(f"after is {after[:80]!r}; no item has that id.", param="after")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
    return Json(
        {
            "object": "list",
            "data": page,
            "first_id": None,
            "last_id": None,
            "has_more": len(items) > limit,
            **ends,
        }
    )


async def _to_request(
    body: ResponseBody, new: list[Item], parts: Parts, principal: Principal, request_id: str
) -> ChatRequest:
    history: list[Item] = []
    if body.previous_response_id:
        for kept in await parts.responses.chain(principal, body.previous_response_id):
            history += json.loads(kept.input)
            history += json.loads(kept.reply)["output"]
    return to_chat_request(body, history, new, request_id)
