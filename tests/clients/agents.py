"""Coding agents of npm, each installed once into a cache outside the repository, and a model whose
context holds what they say before the first question."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import POCKET
from tests.sdk.node_packages import cache

CODEX = "@openai/codex@0.169.0"
CLAUDE_CODE = "@anthropic-ai/claude-code@2.1.197"
_INSTALL_SECONDS = 600
_KEY = b"qwen3.context_length"


def install_npm(package: str) -> Path:
    """Where the package's `node_modules` are. Skips the tests where the registry is not there."""
    if shutil.which("npm") is None:
        pytest.skip(f"npm is not here, which {package} needs")
    place = cache() / "client-tools" / hashlib.sha256(package.encode()).hexdigest()[:16]
    if (place / "complete").exists():
        return place / "node_modules"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", package]
    done = subprocess.run(
        command, check=False, cwd=place, capture_output=True, text=True, timeout=_INSTALL_SECONDS
    )
    if done.returncode:
        pytest.skip(f"{package} can't be installed here: {done.stderr[-300:]}")
    (place / "complete").touch()
    return place / "node_modules"


def write_long_pocket(place: Path, num_tokens: int = 65536) -> None:
    """Pocket, said to have been trained with a longer context than it was: what it says behind
    that makes no sense, but is said."""
    data = bytearray(POCKET.read_bytes())
    at = data.index(_KEY) + len(_KEY)
    kind, _ = struct.unpack_from("<II", data, at)
    assert kind == 4, "the context length is a 32-bit number"
    struct.pack_into("<I", data, at + 4, num_tokens)
    place.write_bytes(data)
