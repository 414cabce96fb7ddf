"""Which model answers, how far the next one is, and the way to ask for another."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.deps import PreferencesDep, PrincipalDep, SettingsDep, SwitchingDep
from service.api.replies import Json, encode_json
from service.api.streaming import disconnected, while_connected
from service.chat.switching import Switching
from service.domain import access
from service.domain.access import Principal
from service.domain.conversation import valid_conversation_id
from service.domain.errors import Forbidden
from service.ipc.status import EngineStatus, Phase, ServiceStatus, SwitchStatus

router = APIRouter(prefix="/v1/models", tags=["models"])


class SwitchBody(BaseModel):
    """Which model is to answer."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        min_length=1,
        max_length=1000,
        description="A name, REPO:FILE on the model hub, or (scope admin) a path to a GGUF file.",
    )
    whom: Literal["everybody", "me"] | None = Field(
        None,
        alias="for",
        description="`everybody` takes an access token with the scope models:switch, and is what "
        "such a token means; `me` has the model answer the caller's own conversations, beside the "
        "present one, where there is memory for both.",
    )
    conversation_id: str | None = Field(
        None, description="With `me`: the only conversation that it is to answer."
    )
    wait: bool = Field(
        False, description="Answer when it is over, instead of at once; always so for `me`."
    )


class SwitchReply(BaseModel):
    """One change of model. `phase` ends with `done` or `failed`; `reason` says why it failed."""

    id: int
    model: str
    previous: str
    mode: str
    phase: str
    progress: float
    reason: str | None


class EngineReply(BaseModel):
    """One engine process; of each mode at most one is `current` and takes new requests, and a
    `guest` takes those of the callers who have chosen it."""

    id: int
    model: str
    mode: str
    state: str
    progress: float
    current: bool
    guest: bool


class ModelStateReply(BaseModel):
    """Which models there are, and what becomes of them."""

    object: str = "model.state"
    current: str | None
    wanted: str
    notice: str | None
    engines: list[EngineReply]
    download: dict[str, Any] | None
    switch: SwitchReply | None


_REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no model of this name."},
    409: {"description": "Another switch is still going on."},
    503: {"description": "The model does not answer, and which one does; only with `wait`."},
}


@router.post("/switch", status_code=202, response_model=ModelStateReply, responses=_REFUSALS)
async def switch_model(
    http_request: Request,
    body: SwitchBody,
    switching: SwitchingDep,
    preferences: PreferencesDep,
    principal: PrincipalDep,
) -> Response:
    """Have another model answer; running answers go on. 202 while it is on its way."""
    whom = body.whom or ("everybody" if may_switch_for_all(principal) else "me")
    if whom == "me":
        name = valid_conversation_id(body.conversation_id) if body.conversation_id else ""
        choosing = preferences.choose(body.model, principal, name)
        await while_connected(http_request.receive, choosing)
        return Json(to_state(switching.status), 200)
    if not may_switch_for_all(principal):
        raise Forbidden(
            "To switch for everybody takes an access token with the scope models:switch; "
            '"for": "me" does not.'
        )
    if body.wait:
        work = switching.complete(body.model, principal)
        await while_connected(http_request.receive, work)
        return Json(to_state(switching.status), 200)
    await switching.begin(body.model, principal)
    return Json(to_state(switching.status), 202)


@router.get("/state", response_model=ModelStateReply)
async def model_state(switching: SwitchingDep) -> Response:
    """Which model answers, and how far downloads, loads and switches are."""
    return Json(to_state(switching.status))


@router.get(
    "/events",
    responses={
        200: {
            "description": "`event: state` with the state now, and again whenever it changes.",
            "content": {"text/event-stream": {}},
        }
    },
)
async def model_events(switching: SwitchingDep, settings: SettingsDep) -> Response:
    """Follow the models' state as server-sent events, for as long as the service runs."""
    return _StateStream(switching, settings.api.keepalive_comment_seconds)


def may_switch_for_all(principal: Principal) -> bool:
    return access.Scope.MODELS_SWITCH in principal.scopes


def to_state(status: ServiceStatus) -> dict[str, Any]:
    current = status.current_engine
    download = status.download
    return {
        "object": "model.state",
        "current": current.model if current is not None else None,
        "wanted": status.wanted_model,
        "notice": status.notice,
        "engines": [_to_engine(engine, status) for engine in status.engines],
        "download": None
        if download is None
        else {
            "model": download.model,
            "bytes_done": download.num_bytes_done,
            "bytes_total": download.num_bytes_total,
        },
        "switch": _to_switch(status.switch) if status.switch is not None else None,
    }


def _to_engine(engine: EngineStatus, status: ServiceStatus) -> dict[str, Any]:
    return {
        "id": engine.id,
        "model": engine.model,
        "mode": engine.mode,
        "state": engine.state,
        "progress": round(engine.progress, 4),
        "current": engine.id == status.current_of(engine.mode),
        "guest": engine.is_guest,
    }


def _to_switch(switch: SwitchStatus) -> dict[str, Any]:
    return {
        "id": switch.id,
        "model": switch.model,
        "previous": switch.previous,
        "mode": switch.mode,
        "phase": switch.phase,
        "progress": round(switch.progress, 4),
        "reason": switch.reason,
    }


class _StateStream(Response):
    """Writes each state as it comes, and a comment when there was none for a while."""

    media_type = "text/event-stream"

    def __init__(self, switching: Switching, keepalive_seconds: float) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._switching = switching
        self._keepalive_seconds = keepalive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        work = asyncio.create_task(self._write(send))
        departure = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({work, departure}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, departure):
                task.cancel()
            await asyncio.gather(work, departure, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        told: ServiceStatus | None = None
        while told is None or told.phase is not Phase.DRAINING:
            status = self._switching.status
            if status != told:
                told = status
                frame = b"event: state\ndata: " + encode_json(to_state(status)) + b"\n\n"
                await send(_body(frame, more=True))
                continue
            try:
                async with asyncio.timeout(self._keepalive_seconds):
                    await self._switching.news()
            except TimeoutError:
                await send(_body(b": ping\n\n", more=True))
        await send(_body(b"", more=False))


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}
