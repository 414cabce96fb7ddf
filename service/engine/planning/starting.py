"""From a file to a model with its context: planned, loaded, measured, opened, in this order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.engine import library
from service.engine.draft_model import check_draft, open_draft
from service.engine.planning import backends, calibrate, machine
from service.engine.planning.calibrate import Calibration
from service.engine.planning.dry_run import bytes_told
from service.engine.planning.loading import LoadedModel, load_model, open_context, plan_for
from service.engine.planning.measuring import measure_apart
from service.engine.planning.memory import MemoryPlan, Sizes, Wish
from service.engine.planning.records import Records
from service.engine.planning.tuning import TINY_WEIGHT_BYTES, Tuning
from service.engine.runner import Drafter
from service.log import get_logger
from service.settings import EngineSettings

_log = get_logger(__name__)

# Where the plan takes less than this share of the memory there is, lack of it kills nobody.
_CRAMPED_SHARE = 0.25
# Where it takes less than this with a second copy of the weights, that copy may be.
_ROOMY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Start:
    """A model that is ready to run; calls work in `buffer_bytes`. `notice` and `degraded` are
    sentences: what memory did not allow, and what was given up after the engine had died of more.
    """

    model: LoadedModel
    context: Any
    sizes: Sizes
    tuning: Tuning
    buffer_bytes: int
    notice: str | None
    degraded: str | None
    drafter: Drafter | None = None


def prepare(
    settings: EngineSettings,
    path: Path,
    on_progress: Callable[[float], None],
    records: Records | None,
    owned: ExitStack,
) -> Start:
    """Load a model in the sizes that fit. Raises `ModelFileError` with one sentence.

    What was acquired is closed by `owned`. `on_progress` hears the loaded share, 0 to 1. Without
    `records` nothing is remembered or measured.
    """
    library.start()
    backends.load()
    backends.check_cards(settings)
    if settings.draft_model is not None:
        check_draft(path, Path(settings.draft_model))
    wish, plan = plan_for(path, settings)
    sizes, degraded = _what_to_try(wish, plan, records)
    tuning = settle(path, settings, sizes, records).tuning
    model = load_model(path, settings, on_progress, copied=_copies(plan, settings))
    owned.callback(model.close)
    calibrate.apply_blas(tuning)
    library.give_back_memory()
    with library.overhearing() as lines:
        context = open_context(model, settings, sizes, tuning)
    owned.callback(llama.llama_free, context)
    drafter = open_draft(settings, sizes, tuning, owned)
    if plan.notice:
        _log.warning("memory_is_short", notice=plan.notice)
    if degraded:
        _log.warning("engine_degraded", reason=degraded)
    _, buffer_bytes = bytes_told(lines)
    return Start(model, context, sizes, tuning, buffer_bytes, plan.notice, degraded, drafter)


def settle(
    path: Path, settings: EngineSettings, sizes: Sizes, records: Records | None
) -> Calibration:
    """How to compute: assumed where that is as good, remembered, or else measured now, in a process
    of its own."""
    assumed = calibrate.assumed(path.stat().st_size, settings)
    if assumed is not None:
        return assumed
    if records is None:
        return calibrate.unmeasured(settings)
    found = records.calibration(settings)
    if found is None:
        records.on_calibrating()
        found = measure_apart(path, settings, sizes)
        if found is None:
            return calibrate.unmeasured(settings)
        records.keep(settings, found)
    if found.advice:
        _log.info("faster_quantisation", advice=found.advice)
    if found.is_disturbed:
        _log.warning(
            "calibration_disturbed",
            reason="Other processes were using the processors; `parley calibrate` measures anew.",
            waited=found.waited,
        )
    return found


def _copies(plan: MemoryPlan, settings: EngineSettings) -> bool:
    """Whether the processor reads so many weights that it gains by huge pages, and there is room
    for what the system keeps of the file as well."""
    twice = plan.need.total + plan.need.weights
    is_large = plan.need.weights >= TINY_WEIGHT_BYTES
    return is_large and not backends.uses_cards(settings) and twice <= _ROOMY_SHARE * plan.available


def _what_to_try(wish: Wish, plan: MemoryPlan, records: Records | None) -> tuple[Sizes, str | None]:
    """The planned sizes, or less where the engine has died of them."""
    if records is None or plan.need.total < _CRAMPED_SHARE * plan.available:
        return plan.sizes, None
    return records.attempts.begin(wish.sizes, plan.sizes, machine.memory_limit())
