"""The supervisor's dealings with the machine: directories, sockets, systemd's variables, logs."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.supervisor.journal import Journal
from service.supervisor.listener import close_listener, open_listener
from service.supervisor.notify import take_systemd
from service.supervisor.plan import Commands, Model, Plan
from service.supervisor.refusal import Refusal
from service.supervisor.runtime import open_runtime_dir, prune_dead


def plan(**facts: object) -> Plan:
    return Plan("0", Model("m"), Commands((), ()), **facts)  # type: ignore[arg-type]


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_fresh_runtime_directory_is_private_and_goes_away(tmp_path: Path) -> None:
    runtime = open_runtime_dir(None, str(tmp_path), pid=1234)
    assert runtime.path == tmp_path / f"parley-{os.getuid()}-1234"
    assert runtime.path.stat().st_mode & 0o777 == 0o700
    assert runtime.metrics.is_dir()
    runtime.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_given_runtime_directory_keeps_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_1.db").touch()
    (tmp_path / "engine-7.sock").touch()
    runtime = open_runtime_dir(tmp_path, "/nowhere", pid=1)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["metrics", "theirs"]
    runtime.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["theirs"]


def test_a_runtime_directory_that_is_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="too long for the sockets"):
        open_runtime_dir(tmp_path / ("x" * 100), "/nowhere", pid=1)


def test_a_dead_engine_leaves_no_socket_and_no_gauge(tmp_path: Path) -> None:
    runtime = open_runtime_dir(tmp_path / "run", "/nowhere", pid=1)
    runtime.engine_socket(3).touch()
    for name in ("gauge_livesum_77.db", "gauge_livesum_78.db", "counter_77.db"):
        (runtime.metrics / name).touch()
    runtime.forget_engine(3, pid=77)
    assert not runtime.engine_socket(3).exists()
    left = sorted(p.name for p in runtime.metrics.iterdir())
    assert left == ["counter_77.db", "gauge_livesum_78.db"]


def test_only_directories_of_dead_services_of_this_user_are_removed(
    tmp_path: Path, dead_pid: int
) -> None:
    uid = os.getuid()
    (tmp_path / f"parley-{uid}-{dead_pid}").mkdir()
    (tmp_path / f"parley-{uid}-{os.getpid()}").mkdir()
    (tmp_path / f"parley-{uid + 1}-{dead_pid}").mkdir()
    (tmp_path / f"parley-{uid}-notes").mkdir()
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / f"parley-{uid}-{dead_pid}0000").symlink_to(precious)
    removed = prune_dead(str(tmp_path))
    assert [path.name for path in removed] == [f"parley-{uid}-{dead_pid}"]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_free_port_is_listened_on() -> None:
    chosen = plan(port=0)
    listener = open_listener(chosen)
    with socket.create_connection(listener.getsockname(), 5):
        pass
    close_listener(listener, chosen)


def test_a_foreign_address_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match=r"192\.0\.2\.1:80"):
        open_listener(plan(host="192.0.2.1", port=80))
    with pytest.raises(Refusal, match=r"a\.\.b is not an address of this machine"):
        open_listener(plan(host="a..b", port=80))


def test_a_unix_socket_is_made_and_removed(tmp_path: Path) -> None:
    chosen = plan(unix_socket=tmp_path / "http.sock")
    listener = open_listener(chosen)
    with pytest.raises(Refusal, match="in use"):
        open_listener(chosen)
    listener.close()
    again = open_listener(chosen)  # what a killed service left is no obstacle
    close_listener(again, chosen)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced_by_a_socket(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(Refusal, match="is not a socket"):
        open_listener(plan(unix_socket=tmp_path / "notes"))
    assert (tmp_path / "notes").read_text() == "precious"


def test_systemd_s_variables_are_kept_from_the_children() -> None:
    environment = {
        "NOTIFY_SOCKET": "@systemd",
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    systemd = take_systemd(environment)
    assert (systemd.address, systemd.watchdog_seconds) == ("\0systemd", 20)
    assert environment == {"PATH": "/bin"}


def test_a_watchdog_that_is_meant_for_another_process_is_not_ours() -> None:
    environment = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert take_systemd(environment).watchdog_seconds is None
    assert take_systemd({}).address is None


def test_machines_read_facts_and_people_read_sentences() -> None:
    machine, person = io.StringIO(), io.StringIO()
    for stream, readable in ((machine, False), (person, True)):
        journal = Journal(readable, "info", stream)
        journal.warning("model_unavailable", "It is not here.", model="big")
        journal.info("engine_started", id=1)
        journal.debug("nothing")
    first, second = (json.loads(line) for line in machine.getvalue().splitlines())
    assert (first["event"], first["level"], first["role"], first["model"], first["message"]) == (
        "model_unavailable",
        "warning",
        "supervisor",
        "big",
        "It is not here.",
    )
    assert second["id"] == 1
    assert person.getvalue() == "parley: warning: It is not here.\nparley: engine_started id=1\n"
