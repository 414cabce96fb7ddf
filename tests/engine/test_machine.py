"""Cores and memory, as a container's limits have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.engine.planning import machine

CORES = len(os.sched_getaffinity(0))


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """A process in /app/engine of a unified hierarchy, on a machine with 8 GiB to spare."""
    path = tmp_path / "membership"
    path.write_text("0::/app/engine\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8388608 kB\n")
    return path


def available(tmp_path: Path) -> int:
    return machine.available_memory(
        tmp_path / "cgroup", tmp_path / "membership", tmp_path / "meminfo"
    )


def test_without_limits_the_machine_decides(tmp_path: Path, member: Path) -> None:
    assert available(tmp_path) == 8 * 2**30
    assert machine.usable_cores(tmp_path / "cgroup", member) == CORES


def test_a_parents_limit_holds_and_its_page_cache_can_go(tmp_path: Path, member: Path) -> None:
    write(
        tmp_path / "cgroup/app",
        memory__max="3000\n",
        memory__current="2500\n",
        memory__stat="anon 1\ninactive_file 300\nactive_file 100\n",
    )
    write(tmp_path / "cgroup/app/engine", memory__max="max\n", memory__current="10\n")
    assert available(tmp_path) == 900


def test_the_limit_of_the_mounted_root_holds_in_a_container(tmp_path: Path, member: Path) -> None:
    write(tmp_path / "cgroup", memory__max="5000\n", memory__current="1000\n", cpu__max="max 100\n")
    assert available(tmp_path) == 4000


def test_version_1_limits_hold_too(tmp_path: Path, member: Path) -> None:
    member.write_text("5:memory:/app\n3:cpu,cpuacct:/app\n")
    write(
        tmp_path / "cgroup/memory/app",
        memory__limit_in_bytes="7000\n",
        memory__usage_in_bytes="1000\n",
        memory__stat="active_file 1\ntotal_active_file 500\ntotal_inactive_file 100\n",
    )
    write(tmp_path / "cgroup/cpu/app", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n")
    assert available(tmp_path) == 6600
    assert machine.usable_cores(tmp_path / "cgroup", member) == 1


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("max 100000", CORES)])
def test_a_quota_bounds_the_cores(tmp_path: Path, member: Path, quota: str, cores: int) -> None:
    write(tmp_path / "cgroup/app", cpu__max=quota + "\n")
    assert machine.usable_cores(tmp_path / "cgroup", member) == cores


def test_a_process_without_cgroups_has_the_machine(tmp_path: Path, member: Path) -> None:
    member.unlink()
    assert available(tmp_path) == 8 * 2**30


def test_the_limit_is_what_there_could_ever_be(tmp_path: Path, member: Path) -> None:
    def limit() -> int:
        return machine.memory_limit(
            tmp_path / "cgroup", tmp_path / "membership", tmp_path / "meminfo"
        )

    assert limit() == 9_000_000 * 1024
    write(tmp_path / "cgroup/app", memory__max="7000\n", memory__current="6999\n")
    assert limit() == 7000


def test_two_threads_of_one_core_are_one(tmp_path: Path) -> None:
    for cpu in os.sched_getaffinity(0):
        write(tmp_path / f"cpu{cpu}/topology", thread_siblings_list="0-127\n")
    assert machine.physical_cores(tmp_path) == 1
    assert machine.physical_cores(tmp_path / "absent") == 0


def test_the_processor_is_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor: 0\nmodel name\t: A  Fine CPU\nflags\t\t: fpu avx2\n\nprocessor: 1\n"
    )
    assert machine.processor(tmp_path / "cpuinfo") == ("A Fine CPU", frozenset({"fpu", "avx2"}))
    assert machine.processor(tmp_path / "absent") == ("", frozenset())


def test_waiting_for_a_core_is_a_share_of_the_time(tmp_path: Path) -> None:
    write(tmp_path / "1", schedstat="5 1000 1\n")
    with machine.waiting(tmp_path) as waited:
        write(tmp_path / "1", schedstat="9 1000000000001000 2\n")
        write(tmp_path / "2", nothing="")
    assert waited() > 1
    with machine.waiting(tmp_path) as waited:
        pass
    assert waited() == 0


def test_this_machine_has_something() -> None:
    assert machine.usable_cores() >= 1
    assert machine.available_memory() > 0
