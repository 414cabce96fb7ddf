"""The Python servers that come with llama-cpp-python, in an environment of their own.

`python -m llama_cpp.server` is the one that its documentation names; `examples/server` is the one
that its authors keep beside it. Both run from the same release as ours, with OpenBLAS as it is
built here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import free_port, running
from benchmarks.shape import Shape
from deploy.setup.commands import Failure, Pip, say
from deploy.setup.locks import locked_package
from deploy.setup.wheels import cache_directory, provide_sources

ROOT = Path(__file__).parent.parent
_NEEDS = (
    *("uvicorn", "fastapi", "pydantic-settings", "sse-starlette", "starlette-context<0.4"),
    *("PyYAML", "openai", "safetensors", "websockets"),
)


@dataclass(frozen=True, slots=True)
class Peers:
    """Their interpreter, and the program of `examples/server`."""

    python: Path
    example: Path


def provide_peers() -> Peers:
    """Return them from the cache, installed there if this is the first time.

    Raises Failure when something cannot be fetched or installed.
    """
    package = locked_package(ROOT / "requirements.lock", "llama-cpp-python")
    cache = cache_directory(os.environ, Path.home())
    folder = cache / "peers" / f"{package.version}-{sys.implementation.cache_tag}"
    peers = Peers(folder / "venv" / "bin" / "python", folder / "server.py")
    if (folder / "complete").exists():
        return peers
    say("installing llama-cpp-python's own servers once, to be measured beside")
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(sys.executable)
    # A copy of our own environment's llama_cpp: the same build for all.
    _run([str(own), "-m", "venv", str(folder / "venv")])
    _run([str(peers.python), "-m", "pip", "install", "--quiet", *_NEEDS, *_also_needed()])
    _copy_llama_cpp(own, peers.python)
    archive = provide_sources(package, cache, Pip(own))
    member = _run(["tar", "-tzf", str(archive), "--wildcards", "*/examples/server/server.py"])
    peers.example.write_text(_run(["tar", "-xOzf", str(archive), member.strip()]))
    (folder / "complete").touch()
    return peers


@contextmanager
def python_server(peers: Peers, model: Path, shape: Shape, folder: Path) -> Iterator[int]:
    """`python -m llama_cpp.server`; it has one context for all, so it gets one stream's."""
    port = free_port()
    options = {
        "--model": str(model),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--n_ctx": str(shape.slot_context),
        "--n_threads": str(shape.threads),
        "--n_threads_batch": str(shape.threads),
    }
    flat = [word for option in options.items() for word in option]
    command = [str(peers.python), "-m", "llama_cpp.server", *flat]
    with running(command, dict(os.environ), port, folder / "llama_cpp.server.log", "/v1/models"):
        yield port


@contextmanager
def example_server(peers: Peers, model: Path, shape: Shape, folder: Path) -> Iterator[int]:
    """`examples/server`, with as many sequences and as much context as the others."""
    port = free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port},
        "model": {
            "path": str(model),
            "alias": "model",
            "n_ctx": shape.slots * shape.slot_context,
            "n_seq_max": shape.slots,
            "n_batch": 512,
            "n_ubatch": 512,
            "threads": shape.threads,
            "threads_batch": shape.threads,
            "kv_unified": False,
        },
    }
    file = folder / "example-server.json"
    file.write_text(json.dumps(config))
    command = [str(peers.python), str(peers.example), "-C", str(file)]
    with running(command, dict(os.environ), port, folder / "example-server.log", "/v1/models"):
        yield port


def _also_needed() -> list[str]:
    return ["numpy", "jinja2", "diskcache", "typing-extensions"]


def _copy_llama_cpp(own: Path, theirs: Path) -> None:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    source = Path(_run([str(own), "-c", code]).strip())
    target = Path(_run([str(theirs), "-c", code]).strip())
    shutil.copytree(source / "llama_cpp", target / "llama_cpp", dirs_exist_ok=True)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{done.stderr[-2000:]}\n`{' '.join(command[:4])} …` failed.")
    return done.stdout
