"""What this process may use of the machine: cores and memory, inside a container or not."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that the scheduler gives this process: its affinity, bounded by the cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    quotas = [
        quota
        for folder in _own_cgroups(cgroups, membership)
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return max(1, min([cores, *(math.ceil(q) for q in quotas)]))


def available_memory(
    cgroups: Path = _CGROUPS,
    membership: Path = Path("/proc/self/cgroup"),
    meminfo: Path = Path("/proc/meminfo"),
) -> int:
    """Bytes that can be taken without swapping: `MemAvailable`, bounded by the cgroup's limit."""
    free = [_mem_available(meminfo)]
    for folder in _own_cgroups(cgroups, membership):
        for limit, used, statistics in (
            ("memory.max", "memory.current", "memory.stat"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
        ):
            most = _number(folder / limit)
            now = _number(folder / used)
            if most is not None and now is not None:
                reclaimable = _statistic(folder / statistics, "inactive_file")
                free.append(max(0, most - now + reclaimable))
    return min(free)


def _own_cgroups(cgroups: Path, membership: Path) -> list[Path]:
    """Folders that may hold our limits: our cgroups (v2 and v1) with their parents.

    In a container the mounted root is our own cgroup, whatever the membership says.
    """
    folders = [cgroups, cgroups / "memory", cgroups / "cpu"]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = cgroups
        if controllers:
            names = controllers.split(",")
            base = cgroups / next((n for n in names if n in ("memory", "cpu")), names[0])
        folder = base / path.lstrip("/")
        while folder != base and base in folder.parents:
            folders.append(folder)
            folder = folder.parent
    return list(dict.fromkeys(folders))


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and quota > 0 and period else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or the word "max"
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(v) for k, v in (line.split() for line in lines) if k == name), 0)


def _mem_available(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{meminfo} does not say how much memory is available")
