"""Huge pages for the weights: a step of an answer goes through all of them.

In pages of 4 KiB the processor looks up a hundred thousand addresses for half a billion parameters,
again and again; on a virtual machine each look-up is two. A mapped file rarely can have them, so
the weights have to be read into memory of the process's own.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

# Smaller blocks don't matter, and what is hardly used (a deep stack) must not be filled.
_LEAST_BYTES = 16 * 1024 * 1024
_LEAST_USED = 0.9

_HUGE_PAGE_BYTES = 2 * 1024 * 1024
# madvise(2): from now on, and at once for what is there (Linux 6.1).
_HUGE, _COLLAPSE = 14, 25

# "7f3cc8e00000-7f3ce07ec000 rw-p 00000000 00:00 0": what belongs to no file.
_OWN = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0\s*$")
_USED = re.compile(r"^Rss:\s+(\d+) kB$")

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def use_huge_pages() -> int:
    """Let large blocks of memory that this process has filled lie in huge pages; returns the bytes
    that the system agreed to. Where it can't, everything stays as it is."""
    try:
        smaps = Path("/proc/self/smaps").read_text()
    except OSError:  # a system that does not tell
        return 0
    return sum(
        length
        for start, length in large_blocks(smaps)
        if _madvise(start, length, _HUGE) == 0 and _madvise(start, length, _COLLAPSE) == 0
    )


def large_blocks(smaps: str) -> Iterator[tuple[int, int]]:
    """Address and bytes of each, in whole huge pages."""
    start = stop = 0
    for line in smaps.splitlines():
        if own := _OWN.match(line):
            start, stop = int(own[1], 16), int(own[2], 16)
        elif (used := _USED.match(line)) and stop - start >= _LEAST_BYTES:
            first = -(-start // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
            last = stop // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
            if 1024 * int(used[1]) >= _LEAST_USED * (stop - start):
                yield first, last - first
            start = stop = 0
        elif not line[:1].isupper():
            start = stop = 0  # of a file, or a stack that is named
