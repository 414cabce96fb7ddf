"""`/v1/conversations/{id}/items`: what a conversation is made of, as OpenAI's clients see it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from service.api.deps import ArchiveDep, ItemsDep, PrincipalDep
from service.api.fields import well_formed
from service.api.items import (
    Item,
    completed,
    items_of,
    page_of,
    to_conversation,
    to_turns,
    without,
)
from service.api.replies import Json
from service.chat.items import Items
from service.domain.access import Principal
from service.domain.conversation import KeptMessage, KeptTurn
from service.domain.errors import ConversationNotFound

router = APIRouter(prefix="/v1/conversations/{conversation_id}/items", tags=["conversations"])

MAX_ITEMS = 20
MAX_DEPTH = 64


class NewPart(BaseModel):
    """A piece of an item; it is kept as it is."""

    model_config = ConfigDict(extra="allow")

    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class NewItem(BaseModel):
    """An item in the words of OpenAI's Responses; it is kept as it is."""

    model_config = ConfigDict(extra="allow")

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    status: str | None = None
    content: str | list[NewPart] | None = None
    summary: list[NewPart] | None = None

    @model_validator(mode="after")
    def _check_text(self) -> NewItem:
        """What it has beside its fields is kept and shown, too."""
        whole = self.model_dump()
        if _depth(whole) > MAX_DEPTH:
            raise PydanticCustomError("depth", f"An item may be nested {MAX_DEPTH} levels deep")
        well_formed(json.dumps(whole, ensure_ascii=False))
        return self


def _depth(value: object) -> int:
    """How many levels of lists and objects there are."""
    depth, level = 0, [value]
    while level := [
        inner
        for each in level
        if isinstance(each, dict | list)
        for inner in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    return depth


class ItemsBody(BaseModel):
    items: list[NewItem] = Field(max_length=MAX_ITEMS)


@router.get("")
async def list_items(
    kept: ItemsDep,
    principal: PrincipalDep,
    conversation_id: str,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="`last_id` of the page before.")] = None,
) -> Response:
    """What was said in any dialect, the newest first unless `order` is `asc`."""
    said = items_of(await kept.messages(principal, conversation_id))
    return Json(page_of(said, limit=limit, order=order, after=after))


@router.post("")
async def add_items(
    kept: ItemsDep, principal: PrincipalDep, conversation_id: str, body: ItemsBody
) -> Response:
    """Put items behind all others."""
    added = await append(kept, principal, conversation_id, body.items)
    return Json(page_of(added, limit=len(added) or 1, order="asc", after=None))


@router.get("/{item_id}")
async def read_item(
    kept: ItemsDep, principal: PrincipalDep, conversation_id: str, item_id: str
) -> Response:
    _, item = await _find(kept, principal, conversation_id, item_id)
    return Json(item)


@router.delete("/{item_id}")
async def delete_item(
    kept: ItemsDep,
    archive: ArchiveDep,
    principal: PrincipalDep,
    conversation_id: str,
    item_id: str,
) -> Response:
    """Take an item out; the reply is the conversation."""
    message, _ = await _find(kept, principal, conversation_id, item_id)
    await kept.replace(principal, conversation_id, without(message, item_id))
    return Json(to_conversation(await archive.summary(principal, conversation_id)))


async def append(
    kept: Items, principal: Principal, conversation_id: str, new: list[NewItem]
) -> list[Item]:
    """The new items, as they are kept now."""
    added = completed(item.model_dump(exclude_none=True) for item in new)
    await kept.append(principal, KeptTurn(conversation_id, to_turns(added)))
    return added


async def _find(
    kept: Items, principal: Principal, conversation_id: str, item_id: str
) -> tuple[KeptMessage, Item]:
    for message in await kept.messages(principal, conversation_id):
        for item in items_of([message]):
            if item["id"] == item_id:
                return message, item
    raise ConversationNotFound(
        f"There is no item `{item_id[:80]}` in the conversation `{conversation_id[:200]}`.",
        param="item_id",
    )
