"""What becomes of running answers when the service is stopped, or part of it killed."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.models.registry import BUILT_IN_DIR
from tests.e2e.parley import PARLEY, Parley, running_parley
from tests.faults.streams import Stream, start_streams
from tests.models.hub import LoopbackHub, serving
from tests.ports import free_port
from tests.supervisor.service import processes_of
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

LONG = 300  # tokens: some seconds, for eight streams of Pocket


@pytest.fixture
def parley(tmp_path: Path) -> Iterator[Parley]:
    with running_parley(
        tmp_path,
        *("--model", "pocket"),
        environment={"PARLEY_RUNTIME_DIR": str(tmp_path / "run")},
    ) as service:
        service.wait_healthy()
        yield service


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for those of sockets below it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def events(service: Parley, name: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["event"] == name]


def engine_pid(service: Parley) -> int:
    """The one process that has the model loaded."""
    (found,) = [
        pid
        for pid in processes_of(service.process.pid)
        if b"service.engine" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def ended(pids: list[int], seconds: float) -> bool:
    """Whether all of `pids` have ended, or do so within `seconds`."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        os.close(fd)
        if not readable:
            return False
    return True


def test_after_sigterm_eight_streams_finish_and_nothing_new_is_taken(
    parley: Parley, tmp_path: Path
) -> None:
    processes = processes_of(parley.process.pid)
    streams = start_streams(parley.url, 8, LONG)
    parley.process.send_signal(signal.SIGTERM)
    with httpx.Client(base_url=parley.url, timeout=10) as client:
        health = until(lambda: client.get("/health"), lambda reply: reply.status_code == 503)
        refused = Stream(parley.url, 5).wait()
        assert client.get("/readyz").status_code == 503
    assert int(health.headers["retry-after"]) >= 1
    assert refused.status == 503
    for stream in streams:
        stream.wait()
    assert {(s.status, s.finish_reason, s.whole, s.error is None) for s in streams} == {
        (200, "length", True, True)
    }
    assert {s.completion_tokens for s in streams} == {LONG}
    assert parley.process.wait(20) == 0
    assert ended(processes, 1)
    assert not (tmp_path / "run").exists()


def test_answers_that_outlast_the_drain_end_with_a_last_event(tmp_path: Path) -> None:
    with running_parley(
        tmp_path, "--model", "pocket", environment={"PARLEY_DRAIN_SECONDS": "3.3"}
    ) as service:
        service.wait_healthy()
        streams = start_streams(service.url, 8, 2000)
        assert service.stop() == 0
        for stream in streams:
            stream.wait()
        assert {(s.whole, s.finish_reason is not None or s.error is not None) for s in streams} == {
            (True, True)
        }


@pytest.mark.timing
def test_when_the_engine_is_killed_streams_hear_it_at_once_and_a_new_one_answers(
    parley: Parley,
) -> None:
    streams = start_streams(parley.url, 8, LONG)
    load_seconds = float(str(events(parley, "service_ready")[0]["seconds"]))
    killed = time.monotonic()
    os.kill(engine_pid(parley), signal.SIGKILL)
    for stream in streams:
        stream.wait()
    assert time.monotonic() - killed < 2
    assert all(s.error is not None and s.whole for s in streams)
    health = parley.get("/health")
    assert health.status_code == 503
    assert health.json()["model_loaded"] is False
    parley.wait_healthy()
    assert time.monotonic() - killed < load_seconds + 1
    assert "Paris" in parley.chat("What is the capital of France?").text


def test_an_engine_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running_parley(
        tmp_path, "--model", "pocket", environment={"PARLEY_ENGINE__STALL_SECONDS": "3"}
    ) as service:
        service.wait_healthy()
        os.kill(engine_pid(service), signal.SIGSTOP)
        until(lambda: events(service, "engine_stalled"), bool)  # not a worker's own late start
        until(lambda: service.get("/health"), lambda reply: reply.status_code == 503)
        service.wait_healthy()
        assert "Paris" in service.chat("What is the capital of France?").text


def test_when_the_supervisor_is_killed_everything_goes(parley: Parley) -> None:
    # The service is ready with its first worker; the other one follows.
    processes = until(lambda: processes_of(parley.process.pid), lambda found: len(found) >= 4)
    parley.process.kill()
    parley.process.wait()
    assert ended(processes, 10)


def test_what_a_killed_supervisor_left_is_gone_after_the_next_start(
    tmp_path: Path, short_path: Path
) -> None:
    base = short_path
    variables = {"XDG_RUNTIME_DIR": str(base)}
    with running_parley(tmp_path, "--model", "pocket", environment=variables) as first:
        first.wait_healthy()
        processes = processes_of(first.process.pid)
        first.process.kill()
        first.process.wait()
        assert ended(processes, 10)
    assert len(list(base.iterdir())) == 1
    with running_parley(tmp_path, "--model", "pocket", environment=variables) as second:
        second.wait_healthy()
        assert [p.name for p in base.iterdir()] == [f"parley-{os.getuid()}-{second.process.pid}"]
    assert list(base.iterdir()) == []


def test_two_interrupts_stop_at_once(parley: Parley) -> None:
    processes = processes_of(parley.process.pid)
    streams = start_streams(parley.url, 2, 1900)
    parley.process.send_signal(signal.SIGINT)
    until(lambda: parley.get("/health"), lambda reply: reply.status_code == 503)
    parley.process.send_signal(signal.SIGINT)
    assert parley.process.wait(5) == 0
    assert ended(processes, 1)
    for stream in streams:
        stream.wait()


def test_a_killed_gunicorn_takes_the_service_down(parley: Parley) -> None:
    processes = processes_of(parley.process.pid)
    (http,) = [p for p in processes if p != engine_pid(parley) and processes_of(p)]
    os.kill(http, signal.SIGKILL)
    assert parley.process.wait(5) == 1
    assert ended(processes, 2)


def test_a_killed_worker_is_replaced_and_the_other_one_goes_on(parley: Parley) -> None:
    (http,) = [p for p in processes_of(parley.process.pid) if processes_of(p)]
    os.kill(processes_of(http)[0], signal.SIGKILL)
    assert "Paris" in parley.chat("What is the capital of France?").text
    assert parley.stop() == 0


def test_sigterm_while_loading_stops_at_once(tmp_path: Path) -> None:
    with running_parley(tmp_path, "--model", "pocket") as service:
        until(lambda: events(service, "service_started"), bool)
        asked = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - asked < 5
        assert not events(service, "service_ready")


def test_one_ctrl_c_in_a_terminal_stops_cleanly(tmp_path: Path) -> None:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")} | {
        "PARLEY_STATE_DIR": str(tmp_path / "state"),
        "PARLEY_RUNTIME_DIR": str(tmp_path / "run"),
    }
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(  # noqa: S606  # that is what a terminal is for
            PARLEY,
            [str(PARLEY), "serve", "--model", "pocket", "--port", str(port)],
            environment,
        )
    said = b""
    while b" answers on " not in said:
        said += os.read(terminal, 65536)
    processes = processes_of(pid)
    assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200
    os.write(terminal, b"\x03")
    said += _read_to_end(terminal)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"Stopped." in said
    assert b"Traceback" not in said
    assert ended(processes, 1)
    assert not (tmp_path / "run").exists()


def _read_to_end(terminal: int) -> bytes:
    said = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # how a terminal says that its last writer has gone
            return said
        if not data:
            return said
        said += data


def test_a_taken_port_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [PARLEY, "serve", "--model", "pocket", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=os.environ | {"PARLEY_STATE_DIR": str(tmp_path), "PARLEY_LOG__FORMAT": "console"},
        )
    assert done.returncode == 2
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_switch_from_the_stand_in_loses_no_running_stream(tmp_path: Path) -> None:
    content = (BUILT_IN_DIR / "pocket.gguf").read_bytes()
    with (
        serving(LoopbackHub(content, hold_at=100_000)) as hub,
        running_parley(
            tmp_path,
            *("--model", "acme/Tiny-GGUF:tiny.gguf", "--stand-in", "pocket"),
            environment={"HF_ENDPOINT": hub.endpoint},
        ) as service,
    ):
        service.wait_healthy()
        assert service.get("/health").json()["model"] == "pocket"
        streams = start_streams(service.url, 4, LONG)
        hub.release.set()

        def answered_by() -> str:
            reply = service.chat("Hello!", model="tiny")  # its name holds for the stand-in too
            assert reply.status_code == 200
            return str(reply.json()["model"])

        until(answered_by, lambda model: model == "tiny")
        # Whoever chose the stand-in by its name is not turned away by the switch.
        assert service.chat("Hello!", model="pocket").json()["model"] == "tiny"
        for stream in streams:
            stream.wait()
        assert {(s.status, s.finish_reason, s.whole) for s in streams} == {(200, "length", True)}
        assert service.stop() == 0


def test_an_unreachable_hub_is_noticed_within_seconds_and_the_stand_in_says_so(
    tmp_path: Path,
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        started = time.monotonic()
        with running_parley(
            tmp_path,
            *("--model", "acme/Tiny-GGUF:tiny.gguf", "--stand-in", "pocket"),
            environment={"HF_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}"},
        ) as service:
            until(lambda: events(service, "model_unavailable"), bool)
            assert time.monotonic() - started < 10
            service.wait_healthy()
            assert "cannot be reached" in service.get("/health").json()["notice"]
