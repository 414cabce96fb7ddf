"""Other people's clients, each set installed once into a cache outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sdk.node_packages import cache

# Aider pins what the others need newer: it gets a place of its own.
LIBRARIES = (
    "langchain-anthropic==1.7.7",
    "langchain-openai==1.7.3",
    "litellm==1.106.2",
    "llm==0.32.1",
    "mcp",  # which litellm imports, and does not ask for
)
AIDER = ("aider-chat==0.86.2",)
_INSTALL_SECONDS = 600


@dataclass(frozen=True)
class Tools:
    """Programs in an environment of their own; `home` is all of the user's that they see."""

    place: Path
    home: Path

    def run(self, program: str, *arguments: str, at: str = ".", **variables: str) -> str:
        """What it prints, started in the folder `at` of its home. Fails where it does."""
        environment = {
            "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # asks nobody else
            **variables,
        }
        done = subprocess.run(
            [str(self.place / "bin" / program), *arguments],
            check=False,
            cwd=self.home / at,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


def install(packages: tuple[str, ...]) -> Path:
    """Where the packages are. Skips the tests where the package index is not there."""
    key = hashlib.sha256(f"{sys.version_info[:2]} {packages}".encode()).hexdigest()[:16]
    place = cache() / "client-tools" / key
    if (place / "complete").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    uv = [sys.executable, "-m", "uv", "--no-config", "--quiet"]
    python = place / "bin" / "python"
    for command in (
        [*uv, "venv", "--python", sys.executable, str(place)],
        [*uv, "pip", "install", "--python", str(python), *packages],
    ):
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
        if done.returncode:
            pytest.skip(f"{' '.join(packages)} can't be installed here: {done.stderr[-300:]}")
    (place / "complete").touch()
    return place
