"""Compiling on trial, in a child that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys

from service.engine.grammar.trial import Trial

# As under systemd, whose filter of system calls answers so.
FORBIDDEN = """
import os
def forbidden(_):
    raise PermissionError
os.nice = forbidden
from service.engine.grammar import trial
trial._compile_what_comes()
"""


def test_a_sandbox_that_forbids_being_nice_forbids_no_grammar() -> None:
    questions = f"[]\n{json.dumps('start: /[a-z]+/')}\n"
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN],
        input=questions,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ready\nended\n"), done.stderr


def test_a_child_answers_for_many_grammars_and_is_replaced_when_it_has_died() -> None:
    trial = Trial(seconds=60)
    trial.check('start: "a"')
    trial.check("start: this is no grammar")
    first = trial._child
    assert first is not None
    first.kill()
    first.wait()
    trial.check('start: "c"')
    trial.close()
