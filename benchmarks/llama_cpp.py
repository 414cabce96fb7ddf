"""llama.cpp's own tools, built from the sources that the llama-cpp-python in use was made of.

They are built once and kept in the cache outside the repository. The tools are linked dynamically,
so the variant without OpenBLAS differs in ggml's libraries alone, and those in one file: the list
of backends. Only ggml is compiled a second time.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.setup.commands import Failure, Pip, say
from deploy.setup.locks import Locked, locked_package
from deploy.setup.wheels import CMAKE_ARGS, cache_directory, processor, provide_sources

ROOT = Path(__file__).parent.parent
TOOLS = ("llama-batched-bench", "llama-server", "llama-quantize")
# Without what these tools don't need: tests, examples, the web page, TLS.
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DGGML_CCACHE=OFF",
)


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """The built tools. With `blas` they use OpenBLAS where ggml thinks that it helps."""

    tools: Path
    plain_libraries: Path

    def command(self, tool: str, *arguments: str) -> list[str]:
        """The command line of one of `TOOLS`."""
        return [str(self.tools / tool), *arguments]

    def environment(self, blas: bool) -> dict[str, str]:
        """The environment that chooses the variant."""
        if blas:
            return dict(os.environ)
        return os.environ | {"LD_LIBRARY_PATH": str(self.plain_libraries)}


def provide_llama_cpp() -> LlamaCpp:
    """Return the tools from the cache, built there if this is the first time (10 to 30 minutes).

    Raises Failure when the sources cannot be fetched or do not compile.
    """
    package = locked_package(ROOT / "requirements.lock", "llama-cpp-python")
    cache = cache_directory(os.environ, Path.home())
    folder = cache / "llama.cpp" / _key(package)
    built = LlamaCpp(folder / "openblas" / "bin", folder / "plain" / "bin")
    if (folder / "complete").exists():
        return built
    archive = provide_sources(package, cache, Pip(ROOT / ".venv" / "bin" / "python"))
    sources = _unpack(archive, folder)
    say(f"building {', '.join(TOOLS)} once for this machine; log: {folder}/log")
    with (folder / "log").open("w") as log:
        _build(sources, folder / "openblas", CMAKE_ARGS.split(), TOOLS, log.fileno())
        _build(sources, folder / "plain", ["-DGGML_BLAS=OFF"], ["ggml"], log.fileno())
    (folder / "complete").touch()
    return built


def _key(package: Locked) -> str:
    facts = [package.version, *sorted(package.sha256), CMAKE_ARGS, *_OPTIONS, processor()]
    return f"{package.version}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack the archive, whose hash has been checked, and return llama.cpp's own folder."""
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(sources)], check=True)
    return next(sources.glob("*/vendor/llama.cpp"))


def _build(
    sources: Path, build: Path, options: list[str], targets: list[str] | tuple[str, ...], log: int
) -> None:
    jobs = str(len(os.sched_getaffinity(0)))
    configure = ["cmake", "-S", str(sources), "-B", str(build), *_OPTIONS, *options]
    compile_ = ["cmake", "--build", str(build), "--parallel", jobs, "--target", *targets]
    for command in (configure, compile_):
        # Nice: whoever shares the machine should not suffer for the minutes that this takes.
        done = subprocess.run(["nice", "-n", "19", *command], stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            raise Failure(f"`{' '.join(command[:3])} …` failed; its log is beside {build}.")
