"""Is it alive, can it answer, and what does it measure."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.api.deps import EnginesDep
from service.api.errors import to_retry_after
from service.api.replies import Json
from service.domain.errors import EngineUnavailable
from service.ipc.client import Engines
from service.ipc.status import EngineState, Phase, ServiceStatus
from service.metrics import ENGINE_ASLEEP, ENGINE_RESTARTS, ENGINE_UP, exposition

router = APIRouter(tags=["health"])

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"description": "The model is loading, the service is draining, or no engine answers."}
}


@router.head("/health", include_in_schema=False)
@router.head("/v1/health", include_in_schema=False)
@router.head("/api/v1/health", include_in_schema=False)
@router.get("/health", responses=_NOT_READY)
@router.get("/v1/health", responses=_NOT_READY)
@router.get("/api/v1/health", responses=_NOT_READY)
async def health(engines: EnginesDep) -> Response:
    """200 once the model answers; until then 503 with how far it is.

    A model that has left memory for lack of requests answers the next one, after it is loaded
    again: 200, with `asleep`.
    """
    return _report(engines)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=_NOT_READY)
async def ready(engines: EnginesDep) -> Response:
    """200 while new requests are taken. The same words as `/health`."""
    return _report(engines)


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def alive() -> Response:
    """200 as long as this worker answers at all."""
    return Json({"status": "alive"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
def metrics(http_request: Request, engines: EnginesDep) -> Response:
    """Prometheus metrics of all processes; answers whether or not an engine does."""
    status = engines.status
    ENGINE_UP.set(1 if serving_model(engines) or status.sleeper else 0)
    ENGINE_ASLEEP.set(1 if status.sleeper else 0)
    ENGINE_RESTARTS.set(status.num_engine_restarts)
    return Response(exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def serving_model(engines: Engines) -> str | None:
    """The model that would take a request now, or None where none would."""
    try:
        return engines.current().model.name
    except EngineUnavailable:
        return None


def _report(engines: Engines) -> Response:
    status = engines.status
    model = serving_model(engines)
    if model is None and status.sleeper is not None:
        model = status.sleeper.model
    if model is not None and status.phase is not Phase.DRAINING:
        facts: dict[str, Any] = {"status": "healthy", "model_loaded": True, "model": model}
        if status.sleeper is not None:
            facts["asleep"] = True
        return Json({**facts, **_circumstances(status, model)})
    retry_after = to_retry_after(status.retry_after_seconds)
    body = {
        "status": _trouble(status),
        "model_loaded": False,
        "progress": _progress(status),
        "retry_after_s": retry_after,
        **_circumstances(status, None),
    }
    return Json(body, 503, headers={"Retry-After": str(retry_after)})


def _trouble(status: ServiceStatus) -> str:
    if status.phase is Phase.DRAINING:
        return "draining"
    states = {engine.state for engine in status.engines}
    return "unhealthy" if EngineState.RESTARTING in states else "loading"


def _progress(status: ServiceStatus) -> float:
    """From 0 to 1: of the load, or of the download while there is nothing to load yet."""
    if status.engines:
        return round(max(engine.progress for engine in status.engines), 3)
    download = status.download
    if download is None or not download.num_bytes_total:
        return 0.0
    return round(download.num_bytes_done / download.num_bytes_total, 3)


def _circumstances(status: ServiceStatus, model: str | None) -> dict[str, Any]:
    """What else is worth knowing: a stand-in and why, a download and how far."""
    facts: dict[str, Any] = {}
    if status.wanted_model and status.wanted_model != model:
        facts["wanted_model"] = status.wanted_model
    if status.degraded:
        facts["degraded"] = status.degraded
    if status.notice:
        facts["notice"] = status.notice
    if status.download is not None:
        facts["download"] = {
            "model": status.download.model,
            "bytes_done": status.download.num_bytes_done,
            "bytes_total": status.download.num_bytes_total,
        }
    return facts
