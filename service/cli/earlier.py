"""What started earlier services, and starts this one in their place.

The files in `earlier/` have their names and hold nothing but a call of this. `uvicorn NAME:app`
asks a module for its `app`; the process then turns into `parley serve`, with the host and port that
uvicorn was given: same process, same pid.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from service.settings import environment_with

EXIT_REFUSED = 2


@dataclass(frozen=True, slots=True)
class Predecessor:
    """One earlier service: what it assumed where nobody said anything else.

    `assumed` are variables. With `takes_model`, the first word of its command line is a model;
    `needs_model` is what it said where nobody had named one.
    """

    name: str
    assumed: Mapping[str, str] = field(default_factory=dict)
    takes_model: bool = False
    needs_model: str = ""

    def __call__(self, attribute: str) -> NoReturn:
        """Turn this process into the service, as a module's `__getattr__` that is asked for `app`.

        Raises `AttributeError` for anything else.
        """
        if attribute != "app":
            raise AttributeError(f"module {self.name!r} has no attribute {attribute!r}")
        words, said = self._command_line()
        environment = environment_with(self.assumed) | said
        named = any(environment.get(name) for name in ("MODEL_PATH", "MODEL_DIR"))
        if self.needs_model and not named and not environment.get("PARLEY_MODEL__NAME"):
            refuse(self.needs_model)
        become(["serve", *words], environment)

    def _command_line(self) -> tuple[list[str], dict[str, str]]:
        """The options of `parley serve`, and the variables, that this command line means."""
        if is_uvicorn(sys.argv[0]):
            return from_uvicorn(sys.argv[1:])
        if Path(sys.argv[0]).stem != self.name.rpartition(".")[2]:
            refuse(
                f"{self.name}:app is for uvicorn, which it replaces by Parley; another server "
                f"cannot run it. Start `python {self.name.replace('.', '/')}.py`."
            )
        if self.takes_model and len(sys.argv) > 1:
            return ["--model", sys.argv[1]], {}
        return [], {}


def is_uvicorn(program: str) -> bool:
    """Whether this is `uvicorn`, or `python -m uvicorn`."""
    path = Path(program)
    return path.stem == "uvicorn" or path.parent.name == "uvicorn"


def from_uvicorn(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What uvicorn was told about where to listen; the rest is its own business."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--host", "--port", "--uds", "--workers"):
        parser.add_argument(option)
    chosen, _ = parser.parse_known_args(list(words))
    if chosen.workers not in (None, "1"):
        refuse(f"--workers {chosen.workers} is for Parley to do: set PARLEY_API__WORKERS instead.")
    given = (("--host", chosen.host), ("--port", chosen.port))
    said = {"PARLEY_API__UNIX_SOCKET": str(chosen.uds)} if chosen.uds else {}
    return [word for option, value in given if value for word in (option, value)], said


def become(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by `parley WORDS`. `-P`: what lies here is not ours."""
    command = [sys.executable, "-P", "-m", "service", *words]
    os.execve(sys.executable, command, dict(environment))  # noqa: S606  # no shell wanted


def refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"parley: error: {sentence}\n")
    sys.stderr.flush()
    os._exit(EXIT_REFUSED)  # a server that imports a module would go on without it


def chat_cli() -> NoReturn:
    """`python chat_cli.py`: the terminal chat."""
    become(["chat", *sys.argv[1:]], environment_with({}))


_MODELS = {"LLM_MODEL_CACHE_DIR": "models"}
_SMALL = {"PARLEY_MODEL__NAME": "qwen2.5-0.5b-instruct", **_MODELS}
_THREE_BILLION = Path("qwen2.5-3b-instruct-q4_k_m.gguf")

api_chatbot = Predecessor("api_chatbot", {**_SMALL, "N_CTX": "4096"})
web_chatbot = Predecessor("web_chatbot", {**_SMALL, "N_CTX": "2048"})
api_service = Predecessor(
    "api_service",
    {
        "PARLEY_MODEL__NAME": str(
            _THREE_BILLION if _THREE_BILLION.is_file() else "qwen2.5-3b-instruct"
        ),
        "N_CTX": "4096",
        "PORT": "8002",
        "PARLEY_API__CORS_ORIGINS": "*",
    },
    takes_model=True,
)
serving_api = Predecessor("app.main", {"LLM_MODEL_NAME": "llama3-1b", **_MODELS})
api = Predecessor(
    "api",
    {"MODEL_NAME": "llama-local", "N_CTX": "4096", "MAX_TOKENS_HARD_CAP": "1024"},
    needs_model="Model not loaded: set MODEL_PATH or MODEL_DIR and restart.",
)
