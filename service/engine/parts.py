"""What the phases of the engine's turn share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.engine.gauges import Gauges
from service.engine.kv.residency import Residency
from service.engine.kv.slots import Slots
from service.engine.order.cost import CostModel
from service.engine.order.scheduler import Scheduler
from service.engine.progress import Progress
from service.engine.runner import ModelRunner


@dataclass(frozen=True, slots=True)
class Parts:
    """The model, the decisions, and the books. Engine thread only, but where a part says so."""

    runner: ModelRunner
    slots: Slots
    cost: CostModel
    scheduler: Scheduler
    gauges: Gauges
    residency: Residency
    progress: Progress
    clock: Callable[[], float]
