"""Finds out whether compiling a grammar ends, in a process that can be killed.

A few hundred bytes of patterns that must all hold at once keep llguidance busy for hours, in spite
of its limits, and a thread can't be stopped. So what is new is compiled by a child first, on an
alphabet of bytes; what is wrong with it is found out later, by who compiles it for good.

    python -m service.engine.grammar.trial     # the child; speaks JSON lines
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, cast

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from service.domain.errors import EngineUnavailable, InvalidRequest
from service.engine.grammar.limits import create_limits

SECONDS = 3.0
# Until the child is there, on a slow machine that has much else to do: no grammar's fault.
_START_SECONDS = 60.0
# Beyond the parent's patience; nobody is there to kill the child when the parent has died.
_MAX_CPU_SECONDS = 10
_MAX_MEMORY_BYTES = 2 * 1024**3


class Trial:
    """A child that compiles grammars which may use the special tokens `names`. One thread."""

    def __init__(self, names: Sequence[str] = (), seconds: float = SECONDS) -> None:
        self._names = list(names)
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def check(self, grammar: str) -> None:
        """Returns where compiling ends in time, well or not. Raises `InvalidRequest` where it does
        not, or takes too much memory; `EngineUnavailable` where the child does not come up;
        `OSError` where there can be none."""
        if self._child is not None and self._child.poll() is not None:
            self.close()  # it died between two questions, so neither was its death
        child = self._child or self._start()
        try:
            _write(child, grammar)
            ended = _hears(child, self._seconds)
        except BrokenPipeError:
            ended = False
        if not ended:
            self.close()
            raise InvalidRequest(
                f"The grammar takes more than {self._seconds:g} s or too much memory to compile; "
                "simplify it."
            )

    def close(self) -> None:
        """End the child. Idempotent; the next `check` starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with contextlib.suppress(BrokenPipeError):
                child.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe)  # noqa: S603 - ourselves
        _write(self._child, self._names)
        if not _hears(self._child, _START_SECONDS):
            self.close()
            raise EngineUnavailable(
                "The process that compiles grammars has not come up; try again.",
                retry_after_seconds=1.0,
            )
        return self._child


def _hears(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it says something in time."""
    answers = cast("IO[bytes]", child.stdout)
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        if not selector.select(seconds):
            return False
    return bool(answers.readline())


def _write(child: subprocess.Popen[bytes], value: object) -> None:
    questions = cast("IO[bytes]", child.stdin)
    questions.write(json.dumps(value).encode() + b"\n")
    questions.flush()


class _Bytes:
    """Tokens of one byte each, and some that are no text."""

    eos_token_id = 256
    bos_token_id = None

    def __init__(self, names: Sequence[str]) -> None:
        special = [b"\xff<end-of-trial>", *(b"\xff" + name.encode() for name in names)]
        self.tokens = [bytes([i]) for i in range(256)] + special

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _compile_what_comes() -> None:
    """The child: a line with names, which is answered when all is ready, then a line for each
    grammar, which is answered when it is compiled."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it; then it is not nice
        os.nice(5)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes(json.loads(sys.stdin.readline()))))
    _say("ready")
    for line in sys.stdin:
        limit = int(time.process_time()) + _MAX_CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        grammar = LLMatcher(tokenizer, json.loads(line), log_level=0, limits=create_limits())
        if not grammar.is_error():
            grammar.compute_bitmask()
        _say("ended")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _compile_what_comes()
