"""The legacy routes."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.deps import (
    ArchiveDep,
    ChatDep,
    ConversationsDep,
    CurrentModelDep,
    PreferencesDep,
    PrincipalDep,
    RequestIdDep,
    SettingsDep,
    SwitchingDep,
)
from service.api.dialects.legacy.schemas import (
    ChatBody,
    ChatReply,
    Detail,
    GenerateBody,
    GenerateReply,
    HistoryReply,
    Limits,
    ModelBody,
    ModelsReply,
    NewReply,
    SwitchReply,
)
from service.api.models import may_switch_for_all
from service.api.replies import Json
from service.api.streaming import while_connected
from service.chat.conversations import Turn
from service.chat.generate import collect
from service.domain.chat import TextRequest
from service.domain.conversation import valid_conversation_id
from service.domain.errors import InvalidRequest
from service.domain.sampling import Sampling
from service.models.registry import catalog
from service.settings import ChatSettings

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Detail, "description": "The request cannot be answered as it stands."},
    422: {"model": Detail, "description": "A field is missing or out of range."},
    503: {"model": Detail, "description": "No engine can take the request now."},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": Detail, "description": "There is no such conversation."}
}
_SWITCH: dict[int | str, dict[str, Any]] = {
    404: {"model": Detail, "description": "There is no model of this name."},
    409: {"model": Detail, "description": "Another switch is still going on."},
    503: {"model": Detail, "description": "The model does not answer; the old one goes on."},
}
router = APIRouter(prefix="/api/v1", tags=["legacy"])


@router.post("/chat", response_model=ChatReply, responses=_REFUSALS)
async def create_reply(
    http_request: Request,
    body: ChatBody,
    conversations: ConversationsDep,
    principal: PrincipalDep,
    settings: SettingsDep,
    request_id: RequestIdDep,
) -> Response:
    """Answer a message, going on with its conversation or starting one."""
    began = time.perf_counter()
    turn = to_turn(body, settings.chat, request_id)
    generation = await while_connected(http_request.receive, conversations.start(turn, principal))
    answer = await while_connected(http_request.receive, collect(generation))
    reply = {
        "response": answer.text,
        "conversation_id": generation.conversation_id,
        "generation_time": round(time.perf_counter() - began, 3),
    }
    dropped = generation.num_dropped_messages
    return Json(reply, headers={"X-Context-Dropped-Messages": str(dropped)} if dropped else None)


@router.post("/chat/new", response_model=NewReply, responses=_REFUSALS)
async def create_conversation(archive: ArchiveDep, principal: PrincipalDep) -> Response:
    """An empty conversation."""
    made = await archive.create(principal)
    return Json({"conversation_id": made.id, "message": "New conversation started"})


@router.get("/chat/models", response_model=ModelsReply)
async def list_models(model: CurrentModelDep) -> Response:
    """The model that is loaded, and those that have a name."""
    loaded = model.name if model else None
    described = {source.name: source for source in catalog().values()}
    names = dict.fromkeys([*([loaded] if loaded else []), *described])
    models = [
        {
            "name": name,
            "status": "Loaded" if name == loaded else "Available",
            "description": described[name].description if name in described else "",
            "context": described[name].context_length if name in described else 0,
        }
        for name in names
    ]
    return Json({"models": models, "current_model": loaded})


@router.post("/generate", response_model=GenerateReply, responses=_REFUSALS)
async def generate(
    http_request: Request,
    body: GenerateBody,
    chat: ChatDep,
    principal: PrincipalDep,
    request_id: RequestIdDep,
) -> Response:
    """Go on with a text, as it stands."""
    began = time.perf_counter()
    request = TextRequest(
        prompt=body.prompt,
        sampling=to_sampling(body),
        max_tokens=min(body.num_tokens, 2**31 - 1),
        request_id=request_id,
    )
    generation = await while_connected(http_request.receive, chat.go_on(request, principal))
    answer = await while_connected(http_request.receive, collect(generation))
    return Json(
        {
            "generated_text": answer.text,
            "prompt": body.prompt,
            "model_name": generation.model.name,
            "tokens_generated": answer.finished.usage.completion_tokens,
            "generation_time": round(time.perf_counter() - began, 3),
        }
    )


@router.post("/chat/switch-model", response_model=SwitchReply, responses=_REFUSALS | _SWITCH)
@router.post("/load-model", response_model=SwitchReply, responses=_REFUSALS | _SWITCH)
async def switch_model(
    http_request: Request,
    body: ModelBody,
    switching: SwitchingDep,
    preferences: PreferencesDep,
    principal: PrincipalDep,
) -> Response:
    """Have another model answer: everybody where the access token has the scope models:switch, and
    else the caller, or one conversation. The reply comes when it answers, or is known not to."""
    if body.conversation_id is not None or not may_switch_for_all(principal):
        name = valid_conversation_id(body.conversation_id) if body.conversation_id else ""
        work = preferences.choose(body.model_name, principal, name)
    else:
        work = switching.complete(body.model_name, principal)
    switch = await while_connected(http_request.receive, work)
    return Json(
        {
            "status": "success",
            "model_name": switch.model,
            "previous_model": switch.previous,
            "message": f"Successfully switched to {switch.model}",
        }
    )


@router.get("/model-info")
async def model_info(model: CurrentModelDep) -> Response:
    """The model that is served, and whether one is."""
    if model is None:
        return Json({"model_name": None, "loaded": False, "status": "not loaded"})
    facts = {
        "model_name": model.name,
        "loaded": True,
        "status": "loaded",
        "description": model.description,
        "parameters": model.num_parameters,
        "size_bytes": model.size_bytes,
        "context_length": model.context_length,
    }
    return Json(facts)


@router.get("/chat/conversation/{conversation_id}", response_model=HistoryReply, responses=_UNKNOWN)
async def read_conversation(
    archive: ArchiveDep, principal: PrincipalDep, conversation_id: str
) -> Response:
    """What was said in it, oldest first."""
    exported = await archive.export(principal, conversation_id)
    messages = [
        {
            "role": kept.message.role.value,
            "content": kept.message.content,
            "timestamp": kept.created_at,
        }
        for kept in exported.messages
    ]
    summary = exported.summary
    times = {"created_at": summary.created_at, "updated_at": summary.updated_at}
    return Json({"conversation_id": summary.id, "messages": messages, **times})


def to_turn(body: ChatBody, settings: ChatSettings, request_id: str) -> Turn:
    """The turn that the body asks for. Raises `InvalidRequest`."""
    if not body.message.strip():
        raise InvalidRequest("message is empty; say something.", param="message")
    named = body.conversation_id or f"conv_{uuid4().hex}"
    return Turn(
        text=body.message,
        conversation_id=valid_conversation_id(named),
        create_missing=True,
        history_exchanges=settings.max_exchanges,
        system_prompt=settings.system_prompt,
        sampling=to_sampling(body),
        max_tokens=min(body.num_tokens, 2**31 - 1),
        request_id=request_id,
    )


def to_sampling(body: Limits) -> Sampling:
    return Sampling(
        temperature=0.7 if body.temperature is None else body.temperature,
        top_p=0.95 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
    )
