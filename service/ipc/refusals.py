"""Why no engine can take a request now, in one sentence."""

from __future__ import annotations

from service.domain.amounts import amount
from service.domain.errors import EngineUnavailable
from service.domain.model import Mode
from service.ipc.status import EngineState, Phase, ServiceStatus


def why_unavailable(status: ServiceStatus, mode: Mode = Mode.CHAT) -> EngineUnavailable:
    """The refusal of a request while no engine of this mode can take it: one sentence, and when to
    try again."""
    return EngineUnavailable(_reason(status, mode), retry_after_seconds=status.retry_after_seconds)


def _reason(status: ServiceStatus, mode: Mode) -> str:
    if status.phase is Phase.DRAINING:
        return "The service is shutting down and takes no new requests."
    engines = {engine.state: engine for engine in status.engines if engine.mode is mode}
    if (engine := engines.get(EngineState.LOADING)) is not None:
        return f"The model `{engine.model}` is loading ({engine.progress:.0%})."
    if engines.keys() & {EngineState.RESTARTING, EngineState.READY}:
        return "The engine is restarting after a failure."
    if mode is not Mode.CHAT:
        return f"No model of the kind `{mode}` is running."
    if EngineState.DRAINING in engines and status.download is None:
        return "The service is switching models."
    return _why_none(status)


def _why_none(status: ServiceStatus) -> str:
    if (download := status.download) is not None:
        done, total = download.num_bytes_done, download.num_bytes_total
        how_far = f"{done / total:.0%}" if total else f"{amount(done)} so far"
        return f"The model `{download.model}` is being downloaded ({how_far})."
    return status.notice or "The service is starting."
