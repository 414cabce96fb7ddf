"""llama.cpp is compiled once for a processor, and never again."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.setup.commands import Failure, Pip
from deploy.setup.locks import Locked
from deploy.setup.wheels import (
    PORTABLE_CMAKE_ARGS,
    cache_directory,
    cached_wheel,
    needed_libc,
    portable_key,
    processor,
    provide_portable_wheel,
    provide_sources,
    provide_wheel,
    usable_wheel,
    wheel_key,
)

SOURCES = b"the sources"
PACKAGE = Locked(
    "llama-cpp-python",
    "0.3.36",
    frozenset({hashlib.sha256(SOURCES).hexdigest()}),
    "llama-cpp-python==0.3.36 --hash=sha256:…\n",
)
NO_PIP = Pip(Path("/nonexistent/python"))


def fake_pip(folder: Path, script: str) -> Pip:
    """Return a pip whose interpreter is this shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return Pip(python)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.cache/parley"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/parley"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/parley"),
        ({"XDG_CACHE_HOME": "/cache", "PARLEY_CACHE_DIR": "/mine"}, "/mine"),
    ],
)
def test_the_cache_lies_outside_the_repository(environ: dict[str, str], expected: str) -> None:
    assert cache_directory(environ, Path("/home/ada")) == Path(expected)


def test_processors_with_other_instructions_are_told_apart(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    kinds = []
    for flags in ("sse avx2", "avx2 sse", "sse avx2 avx512f"):
        cpuinfo.write_text(
            f"model name\t: Some\ncpu MHz\t\t: 2400.{len(flags)}\nflags\t\t: {flags}\n"
        )
        kinds.append(processor(cpuinfo))
    assert kinds[0] == kinds[1] != kinds[2]


def test_whatever_changes_the_machine_code_changes_the_key() -> None:
    key = wheel_key(PACKAGE, "zen3")
    assert key == wheel_key(PACKAGE, "zen3")
    others = {
        wheel_key(PACKAGE, "zen4"),
        wheel_key(PACKAGE, "zen3", "-DGGML_BLAS=OFF"),
        wheel_key(replace(PACKAGE, version="0.3.37"), "zen3"),
        wheel_key(replace(PACKAGE, sha256=frozenset({"ab"})), "zen3"),
    }
    assert len(others | {key}) == 5


def test_a_cached_wheel_is_used_without_calling_pip(tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / wheel_key(PACKAGE, processor()) / "llama.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"")
    assert provide_wheel(PACKAGE, tmp_path, NO_PIP) == wheel


def test_sources_in_the_cache_are_used_when_their_hash_is_the_locked_one(tmp_path: Path) -> None:
    archive = tmp_path / "sdist" / "llama_cpp_python-0.3.36.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(SOURCES)
    assert provide_sources(PACKAGE, tmp_path, NO_PIP) == archive


def test_sources_with_another_hash_are_not_compiled(tmp_path: Path) -> None:
    pip = fake_pip(
        tmp_path, 'while [ "$1" != --dest ]; do shift; done; echo changed >"$2/x.tar.gz"'
    )
    with pytest.raises(Failure, match="does not have the SHA-256 that the lock names"):
        provide_wheel(PACKAGE, tmp_path / "cache", pip)


def test_a_wheel_is_compiled_into_the_cache_with_the_flags_of_the_key(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "sdist").mkdir(parents=True)
    (cache / "sdist" / "llama_cpp_python-0.3.36.tar.gz").write_bytes(SOURCES)
    pip = fake_pip(
        tmp_path,
        """while [ "$1" != --wheel-dir ]; do shift; done
        echo "[1/2] g++"; echo "[2/2] g++"; mkdir "$2"; echo "$CMAKE_ARGS" >"$2/llama.whl" """,
    )
    wheel = provide_wheel(PACKAGE, cache, pip)
    assert wheel.read_text() == "-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS\n"
    assert wheel == cached_wheel(cache, wheel_key(PACKAGE, processor()))
    assert not list(cache.glob("scratch-*"))


def test_a_failed_compilation_shows_its_last_lines_and_leaves_nothing_cached(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    (cache / "sdist").mkdir(parents=True)
    (cache / "sdist" / "llama_cpp_python-0.3.36.tar.gz").write_bytes(SOURCES)
    pip = fake_pip(tmp_path, 'echo "[1/2] g++"; echo "no space left on device"; exit 1')
    with pytest.raises(Failure, match=r"no space left on device\ncompiling .* failed") as failure:
        provide_wheel(PACKAGE, cache, pip)
    log = Path(str(failure.value).rsplit("is in ", 1)[1].rstrip("."))
    assert log.read_text().endswith("no space left on device\n")
    assert cached_wheel(cache, wheel_key(PACKAGE, processor())) is None
    assert not list(cache.glob("scratch-*"))


def put_wheel(cache: Path, key: str, *libraries: bytes) -> Path:
    """Return a wheel in the cache that has these libraries."""
    wheel = cache / "wheels" / key / "llama_cpp_python.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for number, content in enumerate(libraries):
            archive.writestr(f"llama_cpp/lib/lib{number}.so.0", content)
    return wheel


def test_a_portable_wheel_is_used_where_there_is_none_for_this_processor(tmp_path: Path) -> None:
    for key in (portable_key(PACKAGE), wheel_key(PACKAGE, processor())):
        assert put_wheel(tmp_path, key) == provide_wheel(PACKAGE, tmp_path, NO_PIP)


def test_a_portable_wheel_for_a_newer_c_library_is_not_used(tmp_path: Path) -> None:
    libraries = (b"\0GLIBC_2.2.5\0GLIBC_2.34\0", b"\0GLIBC_2.4\0GLIBCXX_3.4.30\0")
    wheel = put_wheel(tmp_path, portable_key(PACKAGE), *libraries)
    assert needed_libc(wheel) == (2, 34)
    assert usable_wheel(PACKAGE, tmp_path, libc="2.34") == wheel
    assert usable_wheel(PACKAGE, tmp_path, libc="2.31") is None
    assert usable_wheel(PACKAGE, tmp_path, libc="") is None


def test_the_portable_wheel_is_kept_apart_and_compiled_once(tmp_path: Path) -> None:
    wheel = put_wheel(tmp_path, portable_key(PACKAGE))
    assert provide_portable_wheel(PACKAGE, tmp_path, NO_PIP) == wheel
    assert portable_key(PACKAGE) != wheel_key(PACKAGE, processor())


def test_the_image_is_compiled_like_the_portable_wheel() -> None:
    root = Path(__file__).parents[2]
    assert f'ARG CMAKE_ARGS="{PORTABLE_CMAKE_ARGS}"\n' in (root / "Dockerfile").read_text()
    (line,) = (
        line
        for line in (root / "Dockerfile.cuda").read_text().splitlines()
        if line.startswith("ARG CMAKE_ARGS=")
    )
    assert set(PORTABLE_CMAKE_ARGS.split()) <= set(line.partition("=")[2].strip('"').split())
