"""What becomes of running answers when the service is stopped, or part of it killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import pty
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from service.models.registry import BUILT_IN_DIR
from tests.e2e.parley import PARLEY, Parley, running_parley
from tests.e2e.processes import engine_of
from tests.faults.streams import Stream, start_streams
from tests.models.hub import LoopbackHub, serving
from tests.ports import free_port
from tests.supervisor.service import processes_of
from tests.waiting import quick, until

pytestmark = [pytest.mark.services, pytest.mark.model]

LONG = 300  # tokens: some seconds, for eight streams of Pocket
ENDLESS = 1900  # tokens: nearly all that its context holds


@pytest.fixture
def parley(tmp_path: Path) -> Iterator[Parley]:
    with running_parley(
        tmp_path,
        *("--model", "pocket"),
        environment={
            "PARLEY_RUNTIME_DIR": str(tmp_path / "run"),
            "PARLEY_DRAIN_SECONDS": "180",  # of a machine that has much else to do
        },
    ) as service:
        service.wait_healthy()
        yield service


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for those of sockets below it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def events(service: Parley, name: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in service.lines() if line[:1] == "{"]
    return [line for line in lines if line["event"] == name]


def kill_engine(service: Parley) -> dict[str, object]:
    """Returns when the supervisor knows of it; what it says."""
    known = len(events(service, "engine_crashed"))
    os.kill(engine_of(service), signal.SIGKILL)
    return until(lambda: events(service, "engine_crashed")[known:])[0]


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


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


def fresh_folders(folder: Path) -> Iterator[Path]:
    for number in itertools.count():
        made = folder / str(number)
        made.mkdir()
        yield made


def test_after_sigterm_eight_streams_finish_and_nothing_new_is_taken(
    parley: Parley, tmp_path: Path
) -> None:
    processes = processes_of(parley.process.pid)
    streams = start_streams(parley.url, 8, LONG)
    with standing_still(engine_of(parley)):  # no stream ends before all has been looked at
        parley.process.send_signal(signal.SIGTERM)
        until(lambda: parley.is_everywhere(503))
        health = parley.get("/health")
        refused = Stream(parley.url, 5).wait()
        assert parley.get("/readyz").status_code == 503
    assert int(health.headers["retry-after"]) >= 1
    assert refused.status == 503
    for stream in streams:
        stream.wait()
    assert {(s.status, s.finish_reason, s.whole, s.error is None) for s in streams} == {
        (200, "length", True, True)
    }
    assert {s.completion_tokens for s in streams} == {LONG}
    assert parley.process.wait(60) == 0
    assert ended(processes, 20)
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
    load_seconds = float(str(events(parley, "service_ready")[0]["seconds"]))
    lengths = itertools.count(ENDLESS - 10)  # what an engine died on is not asked again

    def hear() -> float:
        """Seconds from the death of the engine to the end of the last stream."""
        streams, engine = start_streams(parley.url, 8, next(lengths)), engine_of(parley)
        with standing_still(parley.process.pid):  # no other engine is started meanwhile
            killed = time.monotonic()
            os.kill(engine, signal.SIGKILL)
            for stream in streams:
                stream.wait()
            seconds = time.monotonic() - killed
            assert all(s.error is not None and s.whole for s in streams)
            until(lambda: parley.is_everywhere(503))
            assert parley.get("/health").json()["model_loaded"] is False
        parley.wait_healthy()
        return seconds

    def come_back() -> float:
        """Seconds from the death of the engine to the next one, without the pause that is due."""
        killed = time.monotonic()
        crash = kill_engine(parley)
        parley.wait_healthy()
        return time.monotonic() - killed - float(str(crash["restart_in_seconds"]))

    quick(hear, 2)
    quick(come_back, load_seconds + 0.5)
    assert "Paris" in parley.chat("What is the capital of France?").text


def test_an_engine_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running_parley(
        tmp_path, "--model", "pocket", environment={"PARLEY_ENGINE__STALL_SECONDS": "3"}
    ) as service:
        service.wait_healthy()
        os.kill(engine_of(service), signal.SIGSTOP)
        until(lambda: events(service, "engine_stalled"), bool)  # not a worker's own late start
        until(lambda: service.get("/health"), lambda reply: reply.status_code == 503)
        service.wait_healthy()
        assert "Paris" in service.chat("What is the capital of France?").text


def test_when_the_supervisor_is_killed_everything_goes(parley: Parley) -> None:
    # The service is ready with its first worker; the other one follows.
    processes = until(lambda: processes_of(parley.process.pid), lambda found: len(found) >= 4)
    parley.process.kill()
    parley.process.wait()
    assert ended(processes, 60)


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
        assert ended(processes, 60)
    assert len(list(base.iterdir())) == 1
    with running_parley(tmp_path, "--model", "pocket", environment=variables) as second:
        second.wait_healthy()
        assert [p.name for p in base.iterdir()] == [f"parley-{os.getuid()}-{second.process.pid}"]
    assert list(base.iterdir()) == []


def test_two_interrupts_stop_at_once(tmp_path: Path) -> None:
    folders = fresh_folders(tmp_path)

    def stop() -> float:
        with running_parley(next(folders), "--model", "pocket") as service:
            service.wait_healthy()
            processes = processes_of(service.process.pid)
            streams = start_streams(service.url, 2, ENDLESS)
            os.kill(engine_of(service), signal.SIGSTOP)  # no stream ends by itself
            service.process.send_signal(signal.SIGINT)
            until(lambda: service.get("/health"), lambda reply: reply.status_code == 503)
            asked = time.monotonic()
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(60) == 0
            seconds = time.monotonic() - asked
            assert ended(processes, 20)
            for stream in streams:
                stream.wait()
            return seconds

    quick(stop, 5)


def test_a_killed_gunicorn_takes_the_service_down(parley: Parley) -> None:
    processes = processes_of(parley.process.pid)
    (http,) = [p for p in processes if p != engine_of(parley) and processes_of(p)]
    os.kill(http, signal.SIGKILL)
    assert parley.process.wait(60) == 1
    assert ended(processes, 20)


def test_a_killed_worker_is_replaced_and_the_other_one_goes_on(parley: Parley) -> None:
    (http,) = [p for p in processes_of(parley.process.pid) if processes_of(p)]
    # The service is ready with its first worker; the other one follows.
    workers = until(lambda: processes_of(http), lambda found: len(found) == 2)
    os.kill(workers[0], signal.SIGKILL)
    assert ended(workers[:1], 60)
    assert "Paris" in parley.chat("What is the capital of France?").text
    assert parley.stop() == 0


def test_sigterm_while_loading_stops_at_once(tmp_path: Path) -> None:
    folders = fresh_folders(tmp_path)

    def stop() -> float:
        with running_parley(next(folders), "--model", "pocket") as service:
            until(lambda: events(service, "service_started"), bool)
            asked = time.monotonic()
            assert service.stop() == 0
            seconds = time.monotonic() - asked
            # Where it has been ready by then, this was not asked in time.
            return math.inf if events(service, "service_ready") else seconds

    quick(stop, 5)


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
    health = f"http://127.0.0.1:{port}/health"
    until(lambda: httpx.get(health, timeout=60).status_code == 200)  # the worker hears of it, too
    os.write(terminal, b"\x03")
    said += _read_to_end(terminal)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"Stopped." in said
    assert b"Traceback" not in said
    assert ended(processes, 20)
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
            timeout=60,
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

        def answered_by(name: str) -> str:
            reply = service.chat("Hello!", model=name)
            assert reply.status_code == 200
            return str(reply.json()["model"])

        # Its name holds for the stand-in, too, and whoever chose that by its own is not turned
        # away by the switch.
        for name in ("tiny", "pocket"):
            until(partial(answered_by, name), lambda model: model == "tiny")
        for stream in streams:
            stream.wait()
        assert {(s.status, s.finish_reason, s.whole) for s in streams} == {(200, "length", True)}
        assert service.stop() == 0


def test_an_unreachable_hub_is_noticed_within_seconds_and_the_stand_in_says_so(
    tmp_path: Path,
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        with running_parley(
            tmp_path,
            *("--model", "acme/Tiny-GGUF:tiny.gguf", "--stand-in", "pocket"),
            environment={"HF_ENDPOINT": f"http://127.0.0.1:{nobody.getsockname()[1]}"},
        ) as service:
            until(lambda: events(service, "model_unavailable"), bool)
            begun, noticed = (
                datetime.fromisoformat(str(events(service, name)[0]["timestamp"]))
                for name in ("download_started", "model_unavailable")
            )
            assert (noticed - begun).total_seconds() < 10
            service.wait_healthy()
            until(
                lambda: str(service.get("/health").json().get("notice")),
                lambda notice: "cannot be reached" in notice,
            )
