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
_SHORTEST_SECONDS = 0.5  # a rate over less than this is none


@contextmanager
def parley(model: Path, shape: Shape, folder: Path) -> Iterator[int]:
    """Parley with its defaults, but for the model; yields its port."""
    port = _free_port()
    program = Path(sys.executable).parent / "parley"
    command = [str(program), "serve", "--model", str(model), "--port", str(port)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    settings = {
        "PARLEY_STATE_DIR": str(folder / "state"),
        "PARLEY_ENGINE__SLOTS": str(shape.slots),
        "PARLEY_ENGINE__CONTEXT_LENGTH": str(shape.slot_context),
        "PARLEY_ENGINE__THREADS": str(shape.threads),
    }
    with _running(command, own | settings, port, folder / "parley.log"):
        yield port


@contextmanager
def llama_server(tools: LlamaCpp, model: Path, shape: Shape, folder: Path) -> Iterator[int]:
    """llama-server without OpenBLAS, which suits it best here; yields its port."""
    port = _free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--parallel", str(shape.slots)]
    command = tools.command("llama-server", "-m", str(model), *shape.options(), *options)
    environment = tools.environment(blas=False)
    with _running(command, environment, port, folder / "llama-server.log"):
        yield port


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
    if measured.together_seconds < _SHORTEST_SECONDS:
        raise Failure(f"{load.streams} streams hardly wrote at the same time; take more --tokens.")
    return measured


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], port: int, log: Path
) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            _wait_until_healthy(process, port, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise Failure(f"{log.read_text()[-2000:]}\nport {port} did not become healthy; see above.")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
