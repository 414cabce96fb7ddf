"""The course of the service, with a real supervisor over tiny real children."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.domain.model import Mode
from service.ipc.status import EngineState, Phase, ServiceStatus
from tests.supervisor.service import PATIENCE_SECONDS, conduct, processes_of, supervised
from tests.waiting import quick


def serves(model: str) -> Callable[[ServiceStatus], bool]:
    def is_so(status: ServiceStatus) -> bool:
        return status.current_engine is not None and status.current_engine.model == model

    return is_so


def test_it_serves_once_the_engine_is_ready_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with supervised(tmp_path, wanted=conduct(tmp_path, "good")) as service:
        status = service.wait_for(serves("good"))
        assert status.phase is Phase.SERVING
        assert status.notice is None
        with socket.create_connection(("127.0.0.1", service.port), PATIENCE_SECONDS) as client:
            assert client.recv(5) == b"hello"
        children = processes_of(service.process.pid)
        assert len(children) == 2
        assert service.end() == 0
        assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
        assert not service.runtime.exists()


def test_a_model_that_cannot_be_loaded_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    bad = conduct(tmp_path, "bad", exit_code=2, reason="/x/bad.gguf is not a model.")
    with supervised(tmp_path, wanted=bad, readable=True) as service:
        assert service.wait() == 2
        last = service.rest_of_log().splitlines()[-1]
        assert last == "parley: error: /x/bad.gguf is not a model."


def test_an_engine_that_always_dies_while_loading_is_given_up(tmp_path: Path) -> None:
    bad = conduct(tmp_path, "bad", exit_code=7, load_seconds=0)
    with supervised(tmp_path, wanted=bad) as service:
        assert service.wait() == 1
        assert "died 3 times while loading" in service.rest_of_log()


def test_a_killed_engine_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, wanted=conduct(tmp_path, "good")) as service:
        first = service.wait_for(serves("good"))
        engine = service.wait_for_event("engine_started")
        killed = time.monotonic()
        os.kill(engine["pid"], signal.SIGKILL)
        away = service.wait_for(lambda s: s.current is None)
        assert away.engines[0].state is EngineState.RESTARTING
        assert away.retry_after_seconds >= 1
        crash = service.wait_for_event("engine_crashed")
        assert crash["restart_in_seconds"] == 0.5
        back = service.wait_for(serves("good"))
        assert time.monotonic() - killed >= 0.5
        assert (back.current, back.num_engine_restarts) == ((first.current or 0) + 1, 1)
        assert not (service.runtime / f"engine-{first.current}.sock").exists()


def test_an_engine_that_stops_speaking_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, wanted=conduct(tmp_path, "good"), stall_seconds=5) as service:
        service.wait_for(serves("good"))
        os.kill(service.wait_for_event("engine_started")["pid"], signal.SIGSTOP)
        assert service.wait_for(lambda s: s.current is None).current is None
        assert service.wait_for(serves("good")).num_engine_restarts == 1


def test_an_engine_whose_step_never_ends_is_replaced(tmp_path: Path) -> None:
    hanging = conduct(tmp_path, "hanging", step_seconds=99)
    with supervised(tmp_path, wanted=hanging, stall_seconds=30) as service:
        assert "one step has taken 99 s" in service.wait_for_event("engine_stalled")["reason"]


def test_a_load_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    slow = conduct(tmp_path, "slow", load_seconds=60)
    with supervised(tmp_path, wanted=slow, load_timeout_seconds=0.5) as service:
        assert service.wait() == 1
        assert "loaded for 0.5 s" in service.rest_of_log()


def test_a_stand_in_answers_until_the_download_is_there_and_loaded(tmp_path: Path) -> None:
    arrived, real = tmp_path / "arrived", conduct(tmp_path, "real")
    lines = "\n".join(
        [
            '{"event": "progress", "done": 10, "total": 40}',
            f"wait {arrived}",
            json.dumps({"event": "done", "path": real["path"]}),
        ]
    )
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        stand_in=conduct(tmp_path, "small", drain_seconds=0.5),
        download=lines,
    ) as service:
        standing_in = service.wait_for(
            lambda s: (
                serves("small")(s) and s.download is not None and s.download.num_bytes_done > 0
            )
        )
        assert standing_in.notice == "real is being fetched; small answers until then."
        assert standing_in.download is not None
        assert standing_in.download.num_bytes_total == 40
        arrived.touch()
        switched = service.wait_for(serves("real"))
        assert switched.notice is None
        # The stand-in finishes what it has while the other one takes what is new.
        service.wait_for(
            lambda s: [e.state for e in s.engines] == [EngineState.DRAINING, EngineState.READY]
        )
        service.wait_for(lambda s: [e.model for e in s.engines] == ["real"])
        between = service.seen[service.seen.index(standing_in) :]
        assert all(status.current is not None for status in between)


def test_a_download_that_fails_leaves_the_stand_in_serving_with_a_notice(tmp_path: Path) -> None:
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        stand_in=conduct(tmp_path, "small"),
        download='{"event": "failed", "reason": "No way to the hub.", "retryable": true}',
    ) as service:
        status = service.wait_for(lambda s: serves("small")(s) and "hub" in (s.notice or ""))
        assert status.notice == "No way to the hub. small answers instead."
        assert service.end() == 0


def test_a_download_that_cannot_succeed_stops_a_start_without_a_stand_in(tmp_path: Path) -> None:
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        download='{"event": "failed", "reason": "There is no such model.", "retryable": false}',
    ) as service:
        assert service.wait() == 2
        assert "There is no such model." in service.rest_of_log()


def test_without_a_stand_in_an_unreachable_hub_is_waited_for(tmp_path: Path) -> None:
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        download='{"event": "failed", "reason": "No way to the hub.", "retryable": true}',
    ) as service:
        status = service.wait_for(lambda s: s.notice == "No way to the hub.")
        assert (status.current, status.phase) == (None, Phase.STARTING)
        assert service.end() == 0


def test_a_fetched_model_that_cannot_be_loaded_leaves_the_stand_in_serving(tmp_path: Path) -> None:
    bad = conduct(tmp_path, "real", exit_code=2, reason="It is broken.")
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        stand_in=conduct(tmp_path, "small"),
        download=json.dumps({"event": "done", "path": bad["path"]}),
    ) as service:
        status = service.wait_for(lambda s: serves("small")(s) and "broken" in (s.notice or ""))
        assert status.notice == "It is broken. small answers instead."


def test_a_slow_load_brings_the_stand_in(tmp_path: Path) -> None:
    read = tmp_path / "read"
    with supervised(
        tmp_path,
        wanted=conduct(tmp_path, "big", load_until=str(read)),
        stand_in=conduct(tmp_path, "small"),
    ) as service:
        assert service.wait_for(serves("small")).notice == (
            "big is being loaded; small answers until then."
        )
        read.touch()
        assert service.wait_for(serves("big")).notice is None


def test_a_drain_waits_for_the_engine_and_tells_the_workers_first(tmp_path: Path) -> None:
    slow = conduct(tmp_path, "slow", drain_seconds=1)

    def drain() -> float:
        with supervised(tmp_path, wanted=slow) as service:
            service.wait_for(serves("slow"))
            asked = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            draining = service.wait_for(lambda s: s.phase is Phase.DRAINING)
            assert draining.current is not None or draining.engines
            assert draining.drain_deadline_unix is not None
            assert service.wait() == 0
            return time.monotonic() - asked

    assert quick(drain, 4) >= 1


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    slow = conduct(tmp_path, "slow", drain_seconds=600)

    def stop() -> float:
        with supervised(tmp_path, wanted=slow, drain_seconds=600) as service:
            service.wait_for(serves("slow"))
            service.process.send_signal(signal.SIGINT)
            service.wait_for(lambda s: s.phase is Phase.DRAINING)
            asked = time.monotonic()
            assert service.end(signal.SIGINT) == 0
            return time.monotonic() - asked

    quick(stop, 2)


def test_an_engine_that_ignores_the_drain_is_ended_after_it(tmp_path: Path) -> None:
    stubborn = conduct(tmp_path, "stubborn", drain_seconds=600)
    with supervised(tmp_path, wanted=stubborn, drain_seconds=0.2) as service:
        service.wait_for(serves("stubborn"))
        assert service.end() == 0


def test_sigterm_while_loading_stops_at_once(tmp_path: Path) -> None:
    def stop() -> float:
        with supervised(tmp_path, wanted=conduct(tmp_path, "slow", load_seconds=600)) as service:
            service.wait_for(lambda s: any(e.state is EngineState.LOADING for e in s.engines))
            asked = time.monotonic()
            assert service.end() == 0
            return time.monotonic() - asked

    quick(stop, 2)


def test_sigterm_during_a_download_stops_at_once(tmp_path: Path) -> None:
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        download=f"wait {tmp_path / 'never'}",
    ) as service:
        service.wait_for(lambda s: s.download is not None)
        assert service.end() == 0


@pytest.mark.parametrize(("code", "why"), [(3, "a worker could not start"), (4, "application")])
def test_gunicorn_that_gives_up_ends_the_service(tmp_path: Path, code: int, why: str) -> None:
    with supervised(
        tmp_path, wanted=conduct(tmp_path, "good"), http=("--exit-code", str(code))
    ) as service:
        assert service.wait() == 1
        assert why in service.rest_of_log()
        assert not service.runtime.exists()


def test_a_killed_gunicorn_ends_the_service(tmp_path: Path) -> None:
    with supervised(tmp_path, wanted=conduct(tmp_path, "good")) as service:
        service.wait_for(serves("good"))
        engine = service.wait_for_event("engine_started")["pid"]
        (http,) = [pid for pid in processes_of(service.process.pid) if pid != engine]
        os.kill(http, signal.SIGKILL)
        assert service.wait() == 1
        assert "SIGKILL" in service.rest_of_log()
        assert not Path(f"/proc/{engine}").exists()


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with supervised(tmp_path, wanted=conduct(tmp_path, "good"), port=port) as service:
            assert service.wait() == 2
            log = service.rest_of_log()
            assert f"127.0.0.1:{port} is in use by another program" in log
            assert "Traceback" not in log
            assert not service.runtime.exists()


def test_two_services_cannot_share_a_runtime_directory(tmp_path: Path) -> None:
    with supervised(tmp_path, wanted=conduct(tmp_path, "good")) as service:
        service.wait_for(serves("good"))
        with supervised(tmp_path, wanted=conduct(tmp_path, "good")) as second:
            assert second.wait() == 2
            assert "in use by another parley" in second.rest_of_log()
        assert service.end() == 0


def test_systemd_is_told_readiness_life_and_the_end(tmp_path: Path) -> None:
    read = tmp_path / "read"
    with (
        told_to_systemd(tmp_path / "notify.sock") as told,
        supervised(
            tmp_path,
            {"NOTIFY_SOCKET": str(tmp_path / "notify.sock"), "WATCHDOG_USEC": "300000"},
            wanted=conduct(tmp_path, "good", load_until=str(read)),
        ) as service,
    ):
        before = until_told(told, "STATUS=Loading good: ")
        assert any(message.startswith("EXTEND_TIMEOUT_USEC=") for message in before)
        read.touch()
        ready = until_told(told, "READY=1\n")[-1]
        assert "good answers on http://" in ready
        assert told.get(timeout=PATIENCE_SECONDS) == "WATCHDOG=1"
        # While the engine says nothing there is no sign of life for it.
        os.kill(service.wait_for_event("engine_started")["pid"], signal.SIGKILL)
        assert service.end() == 0
        until_told(told, "STOPPING=1\n")


@contextlib.contextmanager
def told_to_systemd(address: Path) -> Iterator[queue.SimpleQueue[str]]:
    """What arrives at a socket. It is read as it comes: who writes to a full one waits."""
    told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        while message := systemd.recv(4096).decode():
            told.put(message)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield told
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(address))
            reader.join()


def until_told(told: queue.SimpleQueue[str], beginning: str) -> list[str]:
    """All messages up to the first with this beginning."""
    messages: list[str] = []
    while not (messages and messages[-1].startswith(beginning)):
        messages.append(told.get(timeout=PATIENCE_SECONDS))
    return messages


def test_when_the_supervisor_is_killed_its_children_go(tmp_path: Path) -> None:
    with supervised(tmp_path, wanted=conduct(tmp_path, "good")) as service:
        service.wait_for(serves("good"))
        children = processes_of(service.process.pid)
        watched = [os.pidfd_open(pid) for pid in children]
        service.process.kill()
        for fd in watched:
            assert _ended(fd, PATIENCE_SECONDS)
            os.close(fd)


def test_a_worker_that_never_reads_does_not_hold_up_the_others(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"event": "progress", "done": n, "total": 50}) for n in range(50))
    with supervised(
        tmp_path,
        wanted={"name": "real", "path": None},
        stand_in=conduct(tmp_path, "small"),
        download=lines + f"\nwait {tmp_path / 'never'}",
    ) as service:
        service.wait_for(serves("small"))
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(service.runtime / "status.sock"))
            assert service.end() == 0


def _ended(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


def test_a_model_of_another_mode_runs_beside_and_its_failure_hurts_nobody(tmp_path: Path) -> None:
    embeds = {**conduct(tmp_path, "vectors"), "mode": "embed"}
    broken = {**conduct(tmp_path, "judge", exit_code=2, reason="No judge."), "mode": "rerank"}
    with supervised(
        tmp_path, wanted=conduct(tmp_path, "good"), companions=[embeds, broken]
    ) as service:
        both = service.wait_for(lambda s: serves("good")(s) and bool(s.current_of(Mode.EMBED)))
        assert len({both.current, both.current_of(Mode.EMBED)}) == 2
        assert both.current_of(Mode.RERANK) is None
        assert service.wait_for_event("companion_failed")["message"] == "No judge."
        assert service.end() == 0
