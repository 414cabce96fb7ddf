"""Images and containers, through the script that knows how they run here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

SCRIPT = Path(__file__).with_name("image.sh")
TOOLS = ("buildah", "podman", "runc")


def why_not() -> str | None:
    """Why no image can be built here; None when one can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"missing here: {', '.join(missing)}"
    return None if os.getuid() == 0 else "only root can build an image here"


def image(*words: str, check: bool = True, name: str = "localhost/parley-test") -> str:
    """What image.sh prints. `name` is the image that it builds or runs."""
    done = subprocess.run(
        [str(SCRIPT), *words],
        env={**os.environ, "IMAGE": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()


def execute(container: str, *words: str) -> int:
    """The exit code of a command in a container."""
    done = subprocess.run(
        [str(SCRIPT), "podman", "exec", container, *words], capture_output=True, check=False
    )
    return done.returncode


def logs(container: str) -> str:
    """What a container has said, to either of its ends."""
    done = subprocess.run(
        [str(SCRIPT), "podman", "logs", container], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def wait_healthy(container: str) -> None:
    deadline = time.monotonic() + 180
    while execute(container, "parley", "health") != 0:
        assert time.monotonic() < deadline, logs(container)
