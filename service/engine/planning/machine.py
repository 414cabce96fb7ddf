"""What this process may use of the machine: cores and memory, inside a container or not."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")

# The limit and the use of a cgroup, version 2 and version 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


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
    """Bytes that can be taken without swapping: `MemAvailable`, bounded by each cgroup's limit.

    Cached files count as free, as they do in `MemAvailable`: a model that has just been used is
    still in the cache of the service's own cgroup, and must not stand in its own way.
    """
    free = [_meminfo(meminfo, "MemAvailable")]
    for folder in _own_cgroups(cgroups, membership):
        for limit, used in _MEMORY_FILES:
            most = _number(folder / limit)
            now = _number(folder / used)
            if most is not None and now is not None:
                free.append(max(0, most - now + _cached(folder / "memory.stat")))
    return min(free)


def memory_limit(
    cgroups: Path = _CGROUPS,
    membership: Path = Path("/proc/self/cgroup"),
    meminfo: Path = Path("/proc/meminfo"),
) -> int:
    """Bytes that this process could ever have: the machine's, bounded by each cgroup's limit."""
    limits = [
        _number(folder / limit)
        for folder in _own_cgroups(cgroups, membership)
        for limit, _ in _MEMORY_FILES
    ]
    return min([_meminfo(meminfo, "MemTotal"), *(most for most in limits if most is not None)])


def physical_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Usable processors that are not another thread of one already counted; 0 if unknown."""
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        try:
            siblings.add((cpus / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            return 0
    return len(siblings)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """The processor's name and its instruction sets; an empty name where it has none."""
    name, flags = "", frozenset[str]()
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        match key.strip():
            case "model name" | "Model" if not name:
                name = " ".join(value.split())
            case "flags" | "Features" if not flags:
                flags = frozenset(value.split())
    return name, flags


@contextmanager
def waiting(tasks: Path = Path("/proc/self/task")) -> Iterator[Callable[[], float]]:
    """The share of the time in which threads of ours could run and no core was free for them.

    Yields what tells it, once the block has ended; 0 where the kernel does not say.
    """
    share = 0.0
    began, waited = time.perf_counter_ns(), _waited_ns(tasks)
    yield lambda: share
    elapsed = time.perf_counter_ns() - began
    share = max(0, _waited_ns(tasks) - waited) / max(1, elapsed)


def _waited_ns(tasks: Path) -> int:
    total = 0
    for thread in tasks.iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):  # it has just ended, or the kernel keeps none
            continue
    return total


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


def _cached(statistics: Path) -> int:
    """Bytes of file cache. Version 1 tells those of the children apart (`total_`)."""
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    facts = {key: int(value) for key, value in (line.split() for line in lines)}
    return sum(
        facts.get(f"total_{name}", facts.get(name, 0)) for name in ("inactive_file", "active_file")
    )


def _meminfo(meminfo: Path, name: str) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{meminfo} does not say {name}")
