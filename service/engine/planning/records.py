"""What the engine remembers about a model on this machine, in the state directory.

A file that is torn, or about something else, counts as absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.engine import library
from service.engine.binding import version
from service.engine.planning import backends, machine
from service.engine.planning.attempts import Attempts, write_atomically
from service.engine.planning.calibrate import Calibration
from service.engine.planning.measuring import to_calibration
from service.settings import EngineSettings

# What is measured, and how; another number makes what was kept worthless.
_METHOD = 3

Facts = Mapping[str, Any]


class Records:
    """The notes about one model file, in `folder`. `attempts`: what was tried, what became of it.

    `on_calibrating` is called when there is none of a calibration, and it begins.
    """

    def __init__(
        self, folder: Path, model: Path, on_calibrating: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = folder
        self.model = model
        self.on_calibrating = on_calibrating
        self.attempts = Attempts(folder / f"attempts-{_digest(_about_model(model))}.json")

    def calibration(self, settings: EngineSettings) -> Calibration | None:
        """What was measured for this model, machine, build and these settings; None: nothing."""
        facts = self._facts(settings)
        try:
            kept = json.loads(self._calibration_path(facts).read_text())
            if kept["facts"] != facts:
                return None
            return to_calibration(kept["calibration"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, settings: EngineSettings, calibration: Calibration) -> None:
        """Remember what was measured. A disk that refuses is logged only."""
        facts = self._facts(settings)
        text = json.dumps({"facts": facts, "calibration": asdict(calibration)}, indent=1)
        write_atomically(self._calibration_path(facts), text + "\n")

    def _calibration_path(self, facts: Facts) -> Path:
        return self.folder / f"calibration-{_digest(facts)}.json"

    def _facts(self, settings: EngineSettings) -> dict[str, Any]:
        """Everything that the result depends on, as JSON values."""
        name, instructions = machine.processor()
        build = library.directory() / "libllama.so"
        return {
            "method": _METHOD,
            **_about_model(self.model),
            "processor": [name, *sorted(instructions)],
            "cores": [machine.usable_cores(), machine.physical_cores()],
            "cards": [card.name for card in backends.graphics_cards()],
            "build": [version(), backends.load(), *_stamp(build)],
            "settings": [
                *(settings.threads, settings.batch_tokens, settings.blas, settings.gpu_layers),
                settings.slots,
            ],
        }


def _about_model(path: Path) -> dict[str, Any]:
    return {"model": [str(path.resolve()), *_stamp(path)]}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of the last change; zeros for what is not there."""
    try:
        facts = path.stat()
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _digest(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
