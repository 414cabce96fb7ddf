"""What handlers ask for, by type."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.auth.door import Door
from service.auth.limits import RequestLimits
from service.auth.names import OwnNames
from service.auth.spending import Spending
from service.auth.tokens import AccessTokens
from service.chat.archive import Archive
from service.chat.conversations import Conversations
from service.chat.embed import Vectors
from service.chat.generate import Chat
from service.chat.items import Items
from service.chat.preferences import Preferences
from service.chat.responses import Responses
from service.chat.switching import Switching
from service.domain.access import Principal
from service.domain.errors import EngineUnavailable
from service.domain.model import Mode, ModelInfo
from service.ipc.client import Engines
from service.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the application is made of; built once in its lifespan."""

    settings: Settings
    engines: Engines
    chat: Chat
    switching: Switching
    preferences: Preferences
    vectors: Vectors
    conversations: Conversations
    archive: Archive
    door: Door
    names: OwnNames
    limits: RequestLimits
    spending: Spending
    access_tokens: AccessTokens
    responses: Responses
    items: Items


def parts(http_request: Request) -> Parts:
    made: Parts = http_request.app.state.parts
    return made


def _settings(http_request: Request) -> Settings:
    return parts(http_request).settings


def _engines(http_request: Request) -> Engines:
    return parts(http_request).engines


def _current_model(http_request: Request) -> ModelInfo | None:
    """The model that is being served; None while there is none."""
    try:
        return parts(http_request).engines.current().model
    except EngineUnavailable:
        return None


def _models(http_request: Request) -> list[ModelInfo]:
    """All models that answer who asks: those being served, the one for chats first, each once, and
    the one that is asleep."""
    models: dict[str, ModelInfo] = {}
    for mode in Mode:
        with suppress(EngineUnavailable):
            model = parts(http_request).engines.current(mode).model
            models.setdefault(model.name, model)
    resting = parts(http_request).engines.resting
    if resting is not None:
        models.setdefault(resting.name, resting)
    return list(models.values())


def _chat(http_request: Request) -> Chat:
    return parts(http_request).chat


def _switching(http_request: Request) -> Switching:
    return parts(http_request).switching


def _preferences(http_request: Request) -> Preferences:
    return parts(http_request).preferences


def _vectors(http_request: Request) -> Vectors:
    return parts(http_request).vectors


def _conversations(http_request: Request) -> Conversations:
    return parts(http_request).conversations


def _archive(http_request: Request) -> Archive:
    return parts(http_request).archive


def _door(http_request: Request) -> Door:
    return parts(http_request).door


def _responses(http_request: Request) -> Responses:
    return parts(http_request).responses


def _items(http_request: Request) -> Items:
    return parts(http_request).items


def _access_tokens(http_request: Request) -> AccessTokens:
    return parts(http_request).access_tokens


def _spending(http_request: Request) -> Spending:
    return parts(http_request).spending


def _principal(http_request: Request) -> Principal:
    """As `access.Access` has found out; there is none on paths that are open to all."""
    principal: Principal = http_request.state.principal
    return principal


def _request_id(http_request: Request) -> str:
    request_id: str = http_request.state.request_id
    return request_id


PartsDep = Annotated[Parts, Depends(parts)]
SettingsDep = Annotated[Settings, Depends(_settings)]
EnginesDep = Annotated[Engines, Depends(_engines)]
CurrentModelDep = Annotated[ModelInfo | None, Depends(_current_model)]
ModelsDep = Annotated[list[ModelInfo], Depends(_models)]
ChatDep = Annotated[Chat, Depends(_chat)]
SwitchingDep = Annotated[Switching, Depends(_switching)]
PreferencesDep = Annotated[Preferences, Depends(_preferences)]
VectorsDep = Annotated[Vectors, Depends(_vectors)]
ConversationsDep = Annotated[Conversations, Depends(_conversations)]
ArchiveDep = Annotated[Archive, Depends(_archive)]
DoorDep = Annotated[Door, Depends(_door)]
AccessTokensDep = Annotated[AccessTokens, Depends(_access_tokens)]
ResponsesDep = Annotated[Responses, Depends(_responses)]
ItemsDep = Annotated[Items, Depends(_items)]
SpendingDep = Annotated[Spending, Depends(_spending)]
PrincipalDep = Annotated[Principal, Depends(_principal)]
RequestIdDep = Annotated[str, Depends(_request_id)]
