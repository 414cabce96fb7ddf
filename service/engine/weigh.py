"""`python -m service.engine.weigh --model-path PATH`: whether a model fits into memory now.

A process of its own, because a file that is no good may bring llama.cpp down. It reports one JSON
line: `weighed` with sizes in bytes, or `failed` with a sentence for what is not a model.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from service import log
from service.domain.amounts import amount
from service.domain.errors import ConfigurationError, ModelFileError
from service.domain.model import Mode
from service.engine import library
from service.engine.draft_model import check_draft
from service.engine.planning import backends
from service.engine.planning.dry_run import PROCESS_BYTES, DryRun, dry_run
from service.engine.planning.loading import available_for, needs_of, require_file
from service.engine.planning.memory import MemoryPlan, Need, Sizes, plan_memory, wish_of
from service.settings import EngineSettings, load_settings

Facts = dict[str, str | int | bool]

# What of a process is given back when it ends, and by nobody before.
_OWN_MEMORY = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


def weigh(path: Path, mode: Mode, settings: EngineSettings, leaving: int) -> Facts:
    """Whether there is room beside all that runs (`fits`), or once a process has ended that holds
    `leaving` bytes (`fits_alone`). Raises `ModelFileError` for what is not a model."""
    require_file(path)
    backends.load()
    available = available_for(settings)
    settings = _usable(settings, path)
    if mode is not Mode.CHAT:
        with dry_run(path, settings, available + leaving) as dry:
            return _weigh_whole(dry, path, available, leaving)
    with needs_of(path, settings, available + leaving) as (dry, need_of):
        wish = wish_of(settings, dry.trained_context_length)
        try:
            alone = plan_memory(path, wish, need_of, available + leaving)
        except ModelFileError as error:
            return {"event": "weighed", "fits": False, "fits_alone": False, "reason": error.message}
        return _to_facts(alone, available)


def _usable(settings: EngineSettings, path: Path) -> EngineSettings:
    """Without the draft model, where that can't go ahead of this one: its engine leaves it out."""
    if settings.draft_model is None:
        return settings
    try:
        check_draft(path, Path(settings.draft_model))
    except ModelFileError:
        return settings.model_copy(update={"draft_model": None})
    return settings


def _weigh_whole(dry: DryRun, path: Path, available: int, leaving: int) -> Facts:
    """A model that reads whole inputs keeps nothing of them."""
    need = Need(dry.weights, 0, 0, PROCESS_BYTES)
    plan = MemoryPlan(Sizes(1, dry.trained_context_length), need, available + leaving)
    facts = _to_facts(plan, available)
    if need.total > available + leaving:
        room = amount(available + leaving)
        sentence = f"{path} needs {amount(need.total)} of memory, and {room} is available."
        return {**facts, "fits": False, "fits_alone": False, "reason": sentence}
    return facts


def _to_facts(plan: MemoryPlan, available: int) -> Facts:
    return {
        "event": "weighed",
        "fits": plan.need.total <= available,
        "fits_alone": True,
        "reason": plan.notice or "",
        "slots": plan.sizes.slots,
        "context_length": plan.sizes.cells,
        "weights": plan.need.weights,
        "conversations": plan.need.conversations,
        "working": plan.need.working,
        "process": plan.need.process,
        "available": available,
    }


def memory_of(pid: int) -> int:
    """Bytes that end with the process; 0 where there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(1024 * int(found) for found in _OWN_MEMORY.findall(status))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m service.engine.weigh", description=__doc__)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.CHAT)
    parser.add_argument("--draft-model", help="file of a small model that would go ahead of it")
    parser.add_argument("--leaving-pid", type=int, default=0, help="a process that would end first")
    parser.add_argument("--status-fd", type=int, default=1, help="where the JSON line goes")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        log.configure(settings.log, role="weigh")
        library.start()
        leaving = memory_of(chosen.leaving_pid) if chosen.leaving_pid else 0
        engine = settings.engine.model_copy(update={"draft_model": chosen.draft_model})
        facts = weigh(chosen.model_path, chosen.mode, engine, leaving)
    except (ModelFileError, ConfigurationError) as error:
        facts = {"event": "failed", "reason": error.message}
    os.write(chosen.status_fd, (json.dumps(facts) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
