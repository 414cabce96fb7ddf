"""The one wheel that has to be compiled, and the cache that makes it happen once.

llama.cpp is compiled for the processor it will run on (GGML_NATIVE), so a cached wheel is only good
for the same processor, flags, Python and C library; all of these are in its key. A portable wheel
has the kernels of every kind of processor in libraries of their own, and picks the best that runs
when it is loaded: for images, and for machines that shall not compile. It calls Python by no name,
so that any will do, and runs with the C library that its libraries name, or a newer one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.setup.commands import Failure, Pip
from deploy.setup.locks import Locked
from deploy.setup.progress import fraction_of

CMAKE_ARGS = "-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS"
# The folder is where the binding looks, within the wheel.
PORTABLE_CMAKE_ARGS = (
    "-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON"
    f" -DGGML_BACKEND_DIR:STRING=llama_cpp/lib {CMAKE_ARGS}"
)
_BYTES_PER_COMPILER = 900 * 2**20  # the largest translation units, with room to spare


def cache_directory(environ: Mapping[str, str], home: Path) -> Path:
    """Return where built wheels and sources are kept: outside the repository, shared by clones."""
    if named := environ.get("PARLEY_CACHE_DIR"):
        return Path(named).absolute()
    xdg = environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if Path(xdg).is_absolute() else home / ".cache") / "parley"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what distinguishes this processor for a compiler: its machine and instruction sets."""
    told = {"flags", "features", "cpu implementer", "cpu part"}
    found: dict[str, str] = {}
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() in told:
            found.setdefault(name.strip().lower(), " ".join(sorted(value.split())))
    return f"{platform.machine()} {found or platform.processor()}"


def wheel_key(package: Locked, processor_kind: str, cmake_args: str = CMAKE_ARGS) -> str:
    """Name the cache folder of a built wheel; anything that changes the machine code changes it."""
    facts = [
        package.version,
        *sorted(package.sha256),
        cmake_args,
        str(sys.implementation.cache_tag),
        processor_kind,
        " ".join(platform.libc_ver()),
    ]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return f"{package.version}-{sys.implementation.cache_tag}-{platform.machine()}-{digest[:12]}"


def portable_key(package: Locked) -> str:
    """Name the cache folder of the portable wheel, on which Python and C library have no say."""
    facts = [package.version, *sorted(package.sha256), PORTABLE_CMAKE_ARGS]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return f"{package.version}-portable-{platform.machine()}-{digest[:12]}"


def needed_libc(wheel: Path) -> tuple[int, ...]:
    """Return the newest version of the GNU C library that a library in the wheel asks for."""
    found: set[tuple[int, ...]] = {(0,)}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".so" in Path(name).name:
                named = re.findall(rb"\0GLIBC_([0-9.]+)(?=\0)", archive.read(name))
                found |= {tuple(map(int, version.decode().split("."))) for version in named}
    return max(found)


def usable_wheel(package: Locked, cache: Path, libc: str = platform.libc_ver()[1]) -> Path | None:
    """Return the compiled wheel in the cache that is best here: one made for this processor, else
    the portable one where the C library is new enough for it."""
    if wheel := cached_wheel(cache, wheel_key(package, processor())):
        return wheel
    wheel = cached_wheel(cache, portable_key(package))
    if wheel is None or needed_libc(wheel) > tuple(int(part) for part in libc.split(".") if part):
        return None
    return wheel


def cached_wheel(cache: Path, key: str) -> Path | None:
    """Return the built wheel of that key, or None when there is none yet."""
    return next(iter(sorted((cache / "wheels" / key).glob("*.whl"))), None)


def provide_wheel(package: Locked, cache: Path, pip: Pip) -> Path:
    """Return a wheel for this machine from the cache; compile it there when there is none.

    One for exactly this processor comes first, then a portable one. Two set-ups at once wait for
    one another. Raises Failure when the sources cannot be fetched, do not have the locked hash, or
    do not compile.
    """
    if wheel := usable_wheel(package, cache):
        return wheel
    key = wheel_key(package, processor())
    with _alone(cache):
        return usable_wheel(package, cache) or _build(package, cache, key, pip, CMAKE_ARGS)


def provide_portable_wheel(package: Locked, cache: Path, pip: Pip) -> Path:
    """Return the wheel that runs on any processor of this architecture, as `provide_wheel` does."""
    key = portable_key(package)
    with _alone(cache):
        cached = cached_wheel(cache, key)
        return cached or _build(package, cache, key, pip, PORTABLE_CMAKE_ARGS)


def provide_sources(package: Locked, cache: Path, pip: Pip) -> Path:
    """Return the package's source archive in the cache, fetched if need be, hash checked always."""
    folder = cache / "sdist"
    archive = folder / f"{package.name.replace('-', '_')}-{package.version}.tar.gz"
    if archive.exists() and _sha256(archive) in package.sha256:
        return archive
    pip.say(f"fetching the sources of {package.name} {package.version}")
    with scratch(cache) as space:
        locked = space / "locked.txt"
        locked.write_text(package.text)
        pip.run(
            f"fetching {package.name}",
            *("download", "--no-deps", "--no-build-isolation", "--require-hashes"),
            *("--no-binary", package.name, "--dest", str(space), "--requirement", str(locked)),
        )
        folder.mkdir(parents=True, exist_ok=True)
        fetched = next(space.glob("*.tar.gz"))
        fetched.replace(archive)
    if _sha256(archive) not in package.sha256:
        raise Failure(f"{archive} does not have the SHA-256 that the lock names; delete it.")
    return archive


def _build(package: Locked, cache: Path, key: str, pip: Pip, cmake_args: str) -> Path:
    archive = provide_sources(package, cache, pip)
    log = cache / "logs" / f"{package.name}-{key}.log"
    times = "three times that, " if cmake_args is PORTABLE_CMAKE_ARGS else ""
    pip.say(f"compiling takes about ten minutes on two processors, {times}once for this machine")
    pip.say(f"its whole output goes to {log}")
    with scratch(cache) as space:
        pip.with_environment(
            CMAKE_ARGS=cmake_args,
            CMAKE_BUILD_PARALLEL_LEVEL=str(_compilers_at_once()),
            TMPDIR=str(space),
        ).watch(
            f"compiling {package.name}",
            *("wheel", "--verbose", "--no-deps", "--no-index", "--no-build-isolation"),
            *("--wheel-dir", str(space / "out"), str(archive)),
            log=log,
            fraction=fraction_of,
        )
        built = next((space / "out").glob("*.whl"))
        folder = cache / "wheels" / key
        folder.mkdir(parents=True, exist_ok=True)
        return built.replace(folder / built.name)


def _compilers_at_once() -> int:
    """As many compilers as there are processors, unless memory is too small for all of them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _BYTES_PER_COMPILER))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Yield a folder beside the cache, so that a finished file moves into it in one step."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
