"""A build of minutes says how far it is."""

from __future__ import annotations

import io

import pytest

from deploy.setup.progress import Progress, fraction_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  [49/196] /usr/bin/g++ -O3 -c llama.cpp", 0.25),
        ("[196/196] Linking CXX shared library", 1.0),
        ("[  4%] Building CXX object ggml.o", 0.04),
        ("[100%] Built target llama", 1.0),
        ("  -- Including CPU backend", None),
        ("[0/0] nothing to do", None),
        ("array[1/2] = 3", None),
    ],
)
def test_ninja_and_make_tell_how_far_they_are(line: str, expected: float | None) -> None:
    assert fraction_of(line) == expected


def test_a_log_gets_a_line_every_few_percent() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress("compiling", out, clock=clock)
    for done in range(100):
        clock.now = 3.0 * done
        progress.update(done / 100)
    progress.finish()
    told = out.getvalue().splitlines()
    assert [int(line.split()[2]) for line in told] == list(range(0, 101, 5))
    assert told[10] == "parley: compiling  50 %  2:30"


def test_a_terminal_gets_one_line_that_updates() -> None:
    out = Terminal()
    progress = Progress("compiling", out, clock=Clock())
    progress.update(0.5)
    progress.finish()
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().split("\r\x1b[K")[-1] == "parley: compiling 100 %  0:00\n"


def test_progress_never_goes_back() -> None:
    out = Terminal()
    progress = Progress("compiling", out, clock=Clock())
    progress.update(0.5)
    progress.update(0.1)
    assert out.getvalue().endswith(" 50 %  0:00")
