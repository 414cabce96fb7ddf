"""Facts about the model for chats that was reached last, for workers that begin while it sleeps.

One file in the runtime directory, which every worker writes when it reaches an engine.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from service.domain.model import ModelInfo
from service.log import get_logger

FILE = "known-model"

log = get_logger(__name__)


def keep_model(directory: Path, model: ModelInfo) -> None:
    """Write it, whole or not at all; a full disk costs later workers the model's name, no more."""
    fresh = directory / f"{FILE}.{os.getpid()}"
    try:
        fresh.write_bytes(msgspec.msgpack.encode(model))
        fresh.replace(directory / FILE)
    except OSError as error:
        log.warning("model_not_noted", model=model.name, error=str(error))


def known_model(directory: Path) -> ModelInfo | None:
    """The model that a worker reached last; None where none has."""
    try:
        return msgspec.msgpack.decode((directory / FILE).read_bytes(), type=ModelInfo)
    except (OSError, msgspec.DecodeError):
        return None
