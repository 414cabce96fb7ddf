"""Weights in huge pages: what is taken for a large block, and what must stay as it is."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from service.engine.planning.memory import MemoryPlan, Need, Sizes
from service.engine.planning.pages import large_blocks, use_huge_pages
from service.engine.planning.starting import _copies
from service.settings import EngineSettings

MIB = 1024 * 1024


def mapping(line: str, used_kb: int) -> str:
    return (
        f"{line}\nSize:              65536 kB\nRss:               {used_kb} kB\nPss:       1 kB\n"
    )


FULL = "7f0000100000-7f0004100000 rw-p 00000000 00:00 0 "


def test_what_is_full_and_belongs_to_no_file_is_a_large_block_in_whole_huge_pages() -> None:
    assert [*large_blocks(mapping(FULL, 65536))] == [(0x7F0000200000, 62 * MIB)]


def test_a_stack_that_is_hardly_used_is_not_filled() -> None:
    assert not [*large_blocks(mapping(FULL, 4096))]


def test_files_and_small_blocks_stay_as_they_are() -> None:
    file = FULL.replace("00:00 0", "fe:00 16197902") + "/models/one.gguf"
    small = "7f0000100000-7f0000200000 rw-p 00000000 00:00 0 "
    heap = FULL + "[heap]"
    assert not [*large_blocks("".join(mapping(line, 65536) for line in (file, small, heap)))]
    assert len([*large_blocks(mapping(file, 65536) + mapping(FULL, 65536))]) == 1


def test_memory_keeps_what_it_holds_and_nothing_is_filled_by_it() -> None:
    with own_memory(64 * MIB) as full, own_memory(512 * MIB) as bare:
        full[:] = b"parley.." * (8 * MIB)
        bare[0] = 1
        before = resident()
        assert use_huge_pages() >= 0  # some systems have none
        assert full[:] == b"parley.." * (8 * MIB)
        assert resident() - before < 256 * MIB


@pytest.mark.parametrize(
    ("weights", "available", "copied"),
    [(400, 4000, True), (400, 2000, False), (40, 4000, False)],
    ids=["plenty", "not enough for both", "too small to gain"],
)
def test_weights_are_copied_where_the_file_may_stay_in_memory_beside_them(
    weights: int, available: int, copied: bool
) -> None:
    need = Need(weights * MIB, 400 * MIB, 50 * MIB, 50 * MIB)
    plan = MemoryPlan(Sizes(8, 4096), need, available * MIB)
    assert _copies(plan, EngineSettings(gpu_layers=0)) == copied


def own_memory(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
