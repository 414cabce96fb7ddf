"""Amounts of memory, for people."""

from __future__ import annotations


def amount(size: int) -> str:
    """Bytes in the largest unit that leaves a number to the left of the point, in powers of 1024:
    files, memory and downloads are told alike, so that they can be compared."""
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"
