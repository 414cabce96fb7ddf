"""Whether two engines, maybe days apart, understand each other's saved states."""

from __future__ import annotations

import hashlib
from pathlib import Path

from service.engine.binding import version

# A state's layout, as `Cells.save` writes it; raised when that changes.
_LAYOUT = 1
# Of a file of many gigabytes so much is read: this many stripes of that many bytes.
_STRIPES, _STRIPE_BYTES = 64, 64 * 1024


def print_of(path: Path) -> str:
    """What tells a model file from any other, wherever it lies: its size and parts of its bytes,
    its header among them."""
    size = path.stat().st_size
    found = hashlib.sha256(f"{size}".encode())
    step = max(_STRIPE_BYTES, size // _STRIPES)
    with path.open("rb") as file:
        for at in range(0, size, step):
            file.seek(at)
            found.update(file.read(_STRIPE_BYTES))
        file.seek(max(0, size - _STRIPE_BYTES))
        found.update(file.read())
    return found.hexdigest()


def fingerprint_of(*facts: object) -> str:
    """One name for all these facts, this llama.cpp and this layout."""
    all_facts = repr((_LAYOUT, version(), facts))
    return hashlib.sha256(all_facts.encode()).hexdigest()[:32]
