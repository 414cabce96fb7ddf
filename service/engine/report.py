"""`python -m service.engine.report --model-path PATH`: how a model is computed here, and why.

Measures anew and remembers it, or with `--show` tells what is remembered. Reports one JSON line:
`calibrated` with the decision and its table, or `failed` with a sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service import log
from service.domain.amounts import amount
from service.domain.errors import ConfigurationError, ModelFileError
from service.engine import library
from service.engine.planning import backends, calibrate
from service.engine.planning.calibrate import Calibration
from service.engine.planning.loading import load_model, plan_for, require_file
from service.engine.planning.machine import processor
from service.engine.planning.records import Records
from service.settings import Settings, load_settings


def report(path: Path, settings: Settings, *, show: bool) -> dict[str, Any]:
    """The facts as JSON values. Raises `ModelFileError` for what cannot be run here."""
    require_file(path)
    library.start()
    variant = backends.load()
    records = Records(settings.state_dir / "engine", path)
    wish, plan = plan_for(path, settings.engine)
    found = calibrate.assumed(path.stat().st_size, settings.engine)
    if found is None and show:
        found = records.calibration(settings.engine)
    elif found is None:
        found = _measure(path, settings, records)
    name, _ = processor()
    facts: dict[str, Any] = {
        "event": "calibrated",
        "processor": name,
        "kernels": variant,
        "sizes": str(plan.sizes),
        "wish": str(wish.sizes),
        "memory": f"{amount(plan.need.total)} of {amount(plan.available)}",
        "found": found is not None,
    }
    if found is not None:
        told = f"{found.tuning}"
        facts |= {**asdict(found), "decision": told, "is_disturbed": found.is_disturbed}
    return facts


def _measure(path: Path, settings: Settings, records: Records) -> Calibration:
    _, plan = plan_for(path, settings.engine)
    model = load_model(path, settings.engine, lambda _share: None)
    try:
        found = calibrate.measure(model, settings.engine, plan.sizes)
    finally:
        model.close()
    records.keep(settings.engine, found)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Report on standard output; the log goes where it always goes."""
    parser = argparse.ArgumentParser(prog="python -m service.engine.report", description=__doc__)
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--show", action="store_true", help="measure nothing")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings()
        # A draft model has no part in this, and its name would have to become a file first.
        engine = settings.engine.model_copy(update={"draft_model": None})
        settings = settings.model_copy(update={"engine": engine})
        log.configure(settings.log, role="report")
        facts = report(chosen.model_path, settings, show=chosen.show)
    except (ModelFileError, ConfigurationError) as error:
        facts = {"event": "failed", "reason": error.message}
    os.write(1, json.dumps(facts).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
