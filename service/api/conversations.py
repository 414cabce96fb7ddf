"""`/v1/conversations`: what was said, for every device of whoever said it.

Objects are shaped like the OpenAI vendor's conversations, with what people look for beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from service.api.conversation_items import MAX_ITEMS, NewItem, append
from service.api.deps import (
    ArchiveDep,
    ChatDep,
    ConversationsDep,
    ItemsDep,
    PartsDep,
    PrincipalDep,
    RequestIdDep,
)
from service.api.dialects.native.frames import JsonFrames
from service.api.fields import Text
from service.api.items import to_conversation
from service.api.replies import Json, encode_json
from service.api.streaming import EventStream, while_connected
from service.chat.archive import Archive, to_markdown
from service.chat.conversations import Turn
from service.chat.documents import STATUSES, from_document, to_document
from service.chat.ledger import open_ledger
from service.domain.access import Principal
from service.domain.conversation import AnswerState, KeptMessage
from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.settings import ChatSettings

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])

WATCH_SECONDS = 0.5
PageDep = Annotated[int, Query(ge=1, le=200)]


class ConversationReply(BaseModel):
    """A conversation; times in seconds since 1970."""

    id: str
    object: Literal["conversation"] = "conversation"
    title: str
    created_at: int
    updated_at: float
    num_turns: int
    metadata: dict[str, str] = Field(default_factory=dict)


class ConversationList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ConversationReply]
    has_more: bool


class TitleBody(BaseModel):
    """A conversation's title, here or in `metadata`, which may hold anything else beside it."""

    title: Text | None = None
    metadata: dict[str, Text] | None = Field(None, max_length=16)

    @property
    def wanted(self) -> str:
        return self.title or (self.metadata or {}).get("title", "")


class NewBody(TitleBody):
    items: list[NewItem] | None = Field(None, max_length=MAX_ITEMS)


class ForkBody(BaseModel):
    last_turn: int | None = Field(None, ge=0, description="Copy up to this turn; all when absent.")


class ContinueBody(BaseModel):
    """How to go on; what is absent is as in `/chat`."""

    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.9, ge=0, le=1)
    max_tokens: int = Field(512, ge=1, le=2**31 - 1, description="Of what is added.")
    system_prompt: Text | None = None
    background: bool = Field(False, description="Go on when the connection closes, too.")

    def to_turn(self, conversation_id: str, request_id: str, settings: ChatSettings) -> Turn:
        prompt = self.system_prompt
        return Turn(
            text=".",
            conversation_id=conversation_id,
            create_missing=False,
            system_prompt=settings.system_prompt if prompt is None else prompt,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p),
            max_tokens=self.max_tokens,
            request_id=request_id,
            detached=self.background,
        )


class ImportedMessage(BaseModel):
    role: Literal["user", "assistant", "system", "tool"]
    content: Text
    reasoning: Text = ""
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    created_at: float | None = None


class ImportBody(BaseModel):
    """A conversation as `export` wrote it."""

    format: Literal["parley.conversation"]
    version: Literal[1]
    title: Text = ""
    messages: list[ImportedMessage]


@router.get("", response_model=ConversationList)
async def list_conversations(
    archive: ArchiveDep,
    principal: PrincipalDep,
    limit: PageDep = 50,
    before: Annotated[float | None, Query(description="`updated_at` of a page's last.")] = None,
) -> Response:
    """The caller's conversations, the last used first."""
    found = await archive.summaries(principal, limit + 1, before)
    page = [to_conversation(one) for one in found[:limit]]
    return Json({"object": "list", "data": page, "has_more": len(found) > limit})


@router.post("", response_model=ConversationReply)
async def create(
    archive: ArchiveDep, kept: ItemsDep, principal: PrincipalDep, body: NewBody | None = None
) -> Response:
    """A conversation that is empty, or begins with `items`."""
    wanted = body or NewBody()
    made = await archive.create(principal, wanted.wanted)
    if wanted.metadata:
        await kept.describe(principal, made.id, wanted.metadata)
    if wanted.items:
        await append(kept, principal, made.id, wanted.items)
    return Json(to_conversation(await archive.summary(principal, made.id)))


@router.delete("")
async def erase(archive: ArchiveDep, principal: PrincipalDep, everything: bool = False) -> Response:
    """Forget all of the caller's conversations; `everything=true` says that it is meant."""
    if not everything:
        raise InvalidRequest(
            "everything is not true; DELETE /v1/conversations?everything=true forgets all of your "
            "conversations.",
            param="everything",
        )
    return Json({"object": "list.deleted", "deleted": await archive.erase(principal)})


@router.get("/search")
async def search(
    archive: ArchiveDep,
    principal: PrincipalDep,
    q: Annotated[str, Query(description="Words, all of which a message must have.")],
    limit: PageDep = 20,
) -> Response:
    """The caller's messages with these words, the newest first."""
    hits = await archive.search(principal, q, limit)
    data = [
        {
            "conversation_id": hit.conversation_id,
            "title": hit.title,
            "turn": hit.turn,
            "role": hit.role.value,
            "snippet": hit.snippet,
            "created_at": int(hit.created_at),
        }
        for hit in hits
    ]
    return Json({"object": "list", "data": data})


@router.post("/import", response_model=ConversationReply)
async def bring(archive: ArchiveDep, principal: PrincipalDep, body: ImportBody) -> Response:
    """Keep a conversation that `export` wrote, here or elsewhere, under a new id."""
    title, said = from_document(body.model_dump())
    name = await archive.bring(principal, title, said)
    return Json(to_conversation(await archive.summary(principal, name)))


@router.get("/{conversation_id}", response_model=ConversationReply)
async def read(archive: ArchiveDep, principal: PrincipalDep, conversation_id: str) -> Response:
    return Json(to_conversation(await archive.summary(principal, conversation_id)))


@router.post("/{conversation_id}", response_model=ConversationReply)
async def rename(
    archive: ArchiveDep,
    kept: ItemsDep,
    principal: PrincipalDep,
    conversation_id: str,
    body: TitleBody,
) -> Response:
    """Call it something else, or replace its metadata."""
    if body.metadata is not None:
        await kept.describe(principal, conversation_id, body.metadata)
    if body.wanted or body.metadata is None:
        await archive.rename(principal, conversation_id, body.wanted)
    return Json(to_conversation(await archive.summary(principal, conversation_id)))


@router.delete("/{conversation_id}")
async def forget(
    conversations: ConversationsDep, principal: PrincipalDep, conversation_id: str
) -> Response:
    """Forget it with all that was said; an answer that is being written ends."""
    await conversations.clear(conversation_id, principal)
    return Json({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.post("/{conversation_id}/fork", response_model=ConversationReply)
async def fork(
    archive: ArchiveDep, principal: PrincipalDep, conversation_id: str, body: ForkBody | None = None
) -> Response:
    """A copy that goes its own way."""
    copy = await archive.fork(principal, conversation_id, body.last_turn if body else None)
    return Json(to_conversation(copy))


@router.post("/{conversation_id}/stop")
async def stop(
    archive: ArchiveDep,
    conversations: ConversationsDep,
    principal: PrincipalDep,
    conversation_id: str,
) -> Response:
    """End answers that are being written to it, whichever device asked for them."""
    num = await archive.stop(principal, conversation_id)
    conversations.stop_here(conversation_id, principal)
    return Json({"stopped": num})


@router.post(
    "/{conversation_id}/continue",
    status_code=200,
    response_model=None,
    response_class=EventStream,
)
async def go_on(
    http_request: Request,
    parts: PartsDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
    conversation_id: str,
    body: ContinueBody | None = None,
) -> Response:
    """Go on with the last answer where a crash, a stop or a limit ended it.

    Server-sent events as `/chat/stream` writes them for `message`; what is new is added to the
    answer that is kept.
    """
    turn = (body or ContinueBody()).to_turn(conversation_id, request_id, parts.settings.chat)
    work = parts.conversations.resume(turn, principal)
    generation = await while_connected(http_request.receive, work)
    seconds = parts.settings.api.keepalive_comment_seconds
    return EventStream(generation, JsonFrames(generation.conversation_id), seconds)


@router.get("/{conversation_id}/export")
async def export(
    archive: ArchiveDep,
    principal: PrincipalDep,
    conversation_id: str,
    format: Literal["json", "markdown"] = "json",
) -> Response:
    """All of it, to keep or to read."""
    exported = await archive.export(principal, conversation_id)
    if format == "markdown":
        return Response(to_markdown(exported), media_type="text/markdown; charset=utf-8")
    return Json(to_document(exported))


@router.get("/{conversation_id}/context")
async def context(
    chat: ChatDep,
    archive: ArchiveDep,
    conversations: ConversationsDep,
    principal: PrincipalDep,
    conversation_id: str,
) -> Response:
    """Where its tokens go, and what the model will be told of it at the next turn."""
    ledger = await open_ledger(chat, archive, conversations, principal, conversation_id)
    messages = [
        {
            "id": _to_id(entry.kept.key),
            "turn": entry.kept.turn,
            "role": entry.kept.message.role.value,
            "tokens": entry.num_tokens,
            "in_context": entry.told,
        }
        for entry in ledger.entries
    ]
    return Json(
        {
            "context_length": ledger.context_length,
            "tokens_in_context": ledger.num_told_tokens,
            "messages": messages,
        }
    )


@router.get("/{conversation_id}/events")
async def watch(archive: ArchiveDep, principal: PrincipalDep, conversation_id: str) -> Response:
    """Follow what is being written, from any device: `text` is what is new since the last event.

    Server-sent events with `turn`, `text` and `status`; the stream ends when nothing is being
    written.
    """
    await archive.summary(principal, conversation_id)
    frames = _growth(archive, principal, conversation_id)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


async def _growth(
    archive: Archive, principal: Principal, conversation_id: str
) -> AsyncIterator[bytes]:
    told: dict[int, int] = {}
    after = 0
    while True:
        page = await archive.messages(principal, conversation_id, after=after)
        growing = [kept for kept in page if kept.state is AnswerState.WRITING]
        for kept in page:
            if kept in growing or kept.key in told:
                yield _to_frame(kept, told.get(kept.key, 0))
                told[kept.key] = len(kept.message.content)
        if not growing:
            return
        after = growing[0].key - 1
        await asyncio.sleep(WATCH_SECONDS)


def _to_frame(kept: KeptMessage, told: int) -> bytes:
    text = kept.message.content[told:]
    event = {"turn": kept.turn, "text": text, "status": STATUSES[kept.state]}
    return b"data: " + encode_json(event) + b"\n\n"


def _to_id(key: int) -> str:
    return f"msg_{key}"
