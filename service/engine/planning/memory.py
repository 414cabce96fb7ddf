"""How many slots, and how long, fit into the memory there is; decided before anything is loaded.

The system does not refuse memory, it kills the process that used too much. Pure decisions:
`dry_run` says what is needed, `machine` what is available.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from service.domain.amounts import amount
from service.domain.errors import ModelFileError
from service.settings import EngineSettings

# llama.cpp rounds the length of a slot up to this.
CELL_MULTIPLE = 256

# A shorter context than this is refused rather than chosen: no chat fits into it.
MIN_CELLS = 512


@dataclass(frozen=True, slots=True)
class Sizes:
    """So many slots of so many cells (tokens) each."""

    slots: int
    cells: int

    def __str__(self) -> str:
        return f"{self.slots} slot{'s' if self.slots > 1 else ''} of {self.cells} tokens"

    @property
    def total(self) -> int:
        return self.slots * self.cells


@dataclass(frozen=True, slots=True)
class Wish:
    """The sizes that were asked for, and which of the two the operator set himself."""

    sizes: Sizes
    slots_are_fixed: bool = False
    cells_are_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes: weights, the KV cache, what one call works in, and the process around it."""

    weights: int
    conversations: int
    working: int
    process: int

    @property
    def total(self) -> int:
        return self.weights + self.conversations + self.working + self.process

    def __add__(self, other: Need) -> Need:
        """Of both together, in one process."""
        return Need(
            self.weights + other.weights,
            self.conversations + other.conversations,
            self.working + other.working,
            self.process + other.process,
        )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What the engine will run with. `notice`: what had to give, in one sentence, if anything."""

    sizes: Sizes
    need: Need
    available: int
    notice: str | None = None


def wish_of(settings: EngineSettings, trained_context_length: int) -> Wish:
    """What the settings ask for, rounded up as llama.cpp does.

    Only what was set is fixed; the defaults are wishes.
    """
    wished = min(settings.context_length, trained_context_length)
    cells = -(-wished // CELL_MULTIPLE) * CELL_MULTIPLE
    return Wish(
        Sizes(settings.slots, cells),
        slots_are_fixed="slots" in settings.model_fields_set,
        cells_are_fixed="context_length" in settings.model_fields_set,
    )


def plan_memory(
    path: Path, wish: Wish, need_of: Callable[[Sizes], Need], available: int
) -> MemoryPlan:
    """The largest sizes up to the wish that fit into `available` bytes.

    What gives, in this order: the number of slots, down to one; then the length of the context,
    down to `MIN_CELLS`. What the operator fixed never gives. Raises `ModelFileError` naming the
    largest sizes that would fit when none do within these bounds. `need_of` must not shrink when
    sizes grow.
    """
    wanted = need_of(wish.sizes)
    if wanted.total <= available:
        return MemoryPlan(wish.sizes, wanted, available)

    def fits(sizes: Sizes) -> bool:
        return need_of(sizes).total <= available

    sizes = _largest(wish, fits)
    if sizes is None:
        raise ModelFileError(
            f"{path} needs {amount(wanted.total)} of memory with {wish.sizes}, and "
            f"{amount(available)} is available; {_advice(wish, need_of, fits)}"
        )
    notice = (
        f"{path.stem} runs with {sizes} instead of {wish.sizes}, which would need "
        f"{amount(wanted.total)} of memory where {amount(available)} is available."
    )
    return MemoryPlan(sizes, need_of(sizes), available, notice)


def smaller(sizes: Sizes) -> Sizes | None:
    """Half as much: half the slots, or of one slot half the length; None when there is no less."""
    if sizes.slots > 1:
        return replace(sizes, slots=sizes.slots // 2)
    cells = sizes.cells // 2 // CELL_MULTIPLE * CELL_MULTIPLE
    return replace(sizes, cells=cells) if cells >= MIN_CELLS else None


def _largest(wish: Wish, fits: Callable[[Sizes], bool]) -> Sizes | None:
    slots, cells = wish.sizes.slots, wish.sizes.cells
    if not wish.slots_are_fixed:
        most = _most(slots, lambda n: fits(Sizes(n, cells)))
        if most:
            return Sizes(most, cells)
        slots = 1
    if wish.cells_are_fixed:
        return None
    blocks = _most(cells // CELL_MULTIPLE, lambda n: fits(Sizes(slots, n * CELL_MULTIPLE)))
    return Sizes(slots, blocks * CELL_MULTIPLE) if blocks * CELL_MULTIPLE >= MIN_CELLS else None


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, by halving; 0 when not even 1 does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _advice(wish: Wish, need_of: Callable[[Sizes], Need], fits: Callable[[Sizes], bool]) -> str:
    sizes = _largest(Wish(wish.sizes), fits)
    if sizes is None:
        least = Sizes(1, min(MIN_CELLS, wish.sizes.cells))
        need = need_of(least)
        return (
            f"even {least} takes {amount(need.total)}, of which its weights are "
            f"{amount(need.weights)}: use a smaller model, or one with fewer bits per weight."
        )
    return (
        f"{sizes} would fit "
        f"(PARLEY_ENGINE__SLOTS={sizes.slots}, PARLEY_ENGINE__CONTEXT_LENGTH={sizes.cells})."
    )
