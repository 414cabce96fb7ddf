"""The servers under load: started as a user would start them, on the same model and threads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.llama_cpp import LlamaCpp
from benchmarks.load import Load, Measured
from benchmarks.shape import Shape
from deploy.setup.commands import Failure

_START_SECONDS = 120


@contextmanager
def parley(model: Path, shape: Shape, folder: Path, **settings: str) -> Iterator[int]:
    """Parley with its defaults, but for the model and `settings`; yields its port.

    Its state is in `folder / "state"`.
    """
    port = free_port()
    program = Path(sys.executable).parent / "parley"
    command = [str(program), "serve", "--model", str(model), "--port", str(port)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    surroundings = {
        "PARLEY_STATE_DIR": str(folder / "state"),
        "PARLEY_ENGINE__SLOTS": str(shape.slots),
        "PARLEY_ENGINE__CONTEXT_LENGTH": str(shape.slot_context),
        "PARLEY_ENGINE__THREADS": str(shape.threads),
    }
    with running(command, own | surroundings | settings, port, folder / "parley.log"):
        yield port


@contextmanager
def llama_server(
    tools: LlamaCpp, model: Path, shape: Shape, folder: Path, *, blas: bool = False
) -> Iterator[int]:
    """llama-server, with or without OpenBLAS; yields its port."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--parallel", str(shape.slots)]
    command = tools.command("llama-server", "-m", str(model), *shape.options(), *options)
    environment = tools.environment(blas)
    with running(command, environment, port, folder / f"llama-server-{blas}.log"):
        yield port


def how_it_computes(folder: Path) -> str:
    """What Parley's calibration decided when it was started with this folder."""
    lines = (folder / "parley.log").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    chosen = [str(event["chosen"]) for event in events if event.get("event") == "calibrated"]
    return chosen[-1] if chosen else "not calibrated"


def put_under(load: Load) -> Measured:
    """Run the load in its own process, so that it cannot hold up what measures."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(load)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failure(f"{done.stderr[-2000:]}\nthe load of {load.streams} streams failed.")
    measured = Measured(**json.loads(done.stdout))
    return measured


@contextmanager
def running(
    command: list[str], environment: dict[str, str], port: int, log: Path, path: str = "/health"
) -> Iterator[None]:
    """Start a server, wait until `path` answers, and end it. Raises Failure with its last words."""
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}{path}", log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  ours, on the loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise Failure(f"{log.read_text()[-2000:]}\n{url} did not answer; see above.")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
