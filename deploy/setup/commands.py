"""Running pip, quietly when all is well and in full when it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.setup.progress import Progress

_TAIL_LINES = 25


class Failure(Exception):
    """The set-up cannot go on; the message says what failed and what would help."""


def say(sentence: str) -> None:
    """Tell the person at the terminal one thing."""
    sys.stderr.write(f"parley: {sentence}\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Pip:
    """pip of one virtual environment."""

    python: Path
    extra_environment: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal one thing."""
        say(sentence)

    def with_environment(self, **variables: str) -> Pip:
        """Return the same pip with these variables set for what it runs."""
        return Pip(self.python, self.extra_environment | variables)

    def run(self, doing: str, *arguments: str) -> None:
        """Run pip to its end; Failure with the end of its output when it does not succeed."""
        done = subprocess.run(
            self._command(arguments),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise Failure(_failed(doing, done.stdout.splitlines()))

    def watch(
        self,
        doing: str,
        *arguments: str,
        log: Path,
        fraction: Callable[[str], float | None],
    ) -> None:
        """Run pip with its output in a log file, telling how far it is; Failure as in `run`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        progress = Progress(doing, sys.stderr)
        tail: list[str] = []
        with (
            log.open("w", encoding="utf-8") as file,
            subprocess.Popen(
                self._command(arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            for line in process.stdout or ():
                file.write(line)
                tail = [*tail[1 - _TAIL_LINES :], line.rstrip()]
                if (so_far := fraction(line)) is not None:
                    progress.update(so_far)
        if process.returncode != 0:
            progress.abandon()
            raise Failure(f"{_failed(doing, tail)}\nThe whole output is in {log}.")
        progress.finish()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [str(self.python), "-m", "pip", *arguments]

    def _environment(self) -> dict[str, str]:
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        return {**os.environ, **quiet, **self.extra_environment}


def _failed(doing: str, output: list[str]) -> str:
    return "\n".join([*output[-_TAIL_LINES:], f"{doing} failed; the last lines above say why."])
