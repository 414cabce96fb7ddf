"""Whether a model and its slots fit into memory, before llama.cpp tries.

The system does not refuse memory, it kills the process that used too much; so the need is
computed first. Pure arithmetic; `machine` says what is available.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.domain.errors import ModelFileError

# Python, libraries, and what the kernel needs to stay responsive.
_OVERHEAD_BYTES = 96 * 1024 * 1024

# llama.cpp rounds the length of a slot up to this.
CELL_MULTIPLE = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model that decide what it needs; `kv_width` is K and V of one layer."""

    weight_bytes: int
    num_layers: int
    kv_width: int
    embedding: int
    feed_forward: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that one model needs with `slots` slots of `cells` tokens, reading `rows` at once."""

    shape: Shape
    slots: int
    cells: int
    rows: int

    @property
    def conversations(self) -> int:
        """The KV cache: 16-bit keys and values of every layer for every cell."""
        return 2 * self.shape.num_layers * self.shape.kv_width * self.slots * self.cells

    @property
    def working(self) -> int:
        """Buffers of one call: activations, the attention mask, the rows of logits."""
        width = 8 * self.shape.embedding + 3 * self.shape.feed_forward
        activations = 4 * self.rows * (width + self.cells)
        return activations + 2 * 4 * self.slots * self.shape.vocabulary + _OVERHEAD_BYTES

    @property
    def total(self) -> int:
        return self.shape.weight_bytes + self.conversations + self.working

    def with_size(self, slots: int, cells: int) -> Need:
        return Need(self.shape, slots, cells, self.rows)


def require_memory(path: Path, need: Need, available: int) -> None:
    """Raises `ModelFileError` saying what would fit, if `need` is more than `available` bytes."""
    if need.total <= available:
        return
    raise ModelFileError(
        f"{path} needs {_gib(need.total)} of memory with {need.slots} slots of {need.cells} "
        f"tokens, and {_gib(available)} is available; {_advice(need, available)}"
    )


def largest_fit(need: Need, available: int) -> tuple[int, int] | None:
    """The most slots of the wished length, else one slot of the greatest length, that fit."""
    for slots in range(need.slots, 0, -1):
        if need.with_size(slots, need.cells).total <= available:
            return slots, need.cells
    for cells in range(need.cells, 0, -CELL_MULTIPLE):
        if need.with_size(1, cells).total <= available:
            return 1, cells
    return None


def _advice(need: Need, available: int) -> str:
    fit = largest_fit(need, available)
    if fit is None:
        return (
            f"its weights alone are {_gib(need.shape.weight_bytes)}, so use a smaller model or "
            "one with fewer bits per weight."
        )
    slots, cells = fit
    return (
        f"{slots} slot{'s' if slots > 1 else ''} of {cells} tokens would fit "
        f"(PARLEY_ENGINE__SLOTS={slots}, PARLEY_ENGINE__CONTEXT_LENGTH={cells})."
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
