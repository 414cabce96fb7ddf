"""`parley chat` in a real terminal, with the real model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pexpect
import pytest
from click.testing import CliRunner

from service.cli.main import parley as program
from tests.e2e.parley import PARLEY, Parley

Terminal: TypeAlias = "pexpect.spawn[str]"
pytestmark = pytest.mark.model


def surroundings(home: Path) -> dict[str, str]:
    return {**os.environ, "PARLEY_STATE_DIR": str(home / "mine"), "TERM": "xterm", "NO_COLOR": "1"}


@pytest.fixture
def terminal(parley: Parley, tmp_path: Path) -> Iterator[Terminal]:
    child: Terminal = pexpect.spawn(
        str(PARLEY),
        ["chat", "--url", parley.url],
        env=surroundings(tmp_path),
        cwd=tmp_path,
        encoding="utf-8",
        dimensions=(40, 100),
        timeout=60,
    )
    yield child
    child.close(force=True)


def piped(
    parley: Parley, home: Path, text: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PARLEY), "chat", "--url", parley.url, *arguments],
        input=text,
        capture_output=True,
        text=True,
        env=surroundings(home),
        cwd=home,
        check=False,
        timeout=60,
    )


def test_a_chat_is_held_saved_left_and_gone_on_with(
    parley: Parley, terminal: Terminal, tmp_path: Path
) -> None:
    terminal.expect("Current model: pocket")
    terminal.expect("You:")
    terminal.sendline("What is the capital of France?")
    terminal.expect("Assistant:")
    terminal.expect("Paris")
    terminal.expect(r"tokens/s . context \d+ of \d+")
    terminal.sendline("/save trip")
    terminal.expect(r"Conversation saved to trip\.json \(2 messages\)\.")
    terminal.sendline("/new")
    terminal.expect(r"A new conversation\.")
    terminal.sendline("/load trip")
    terminal.expect(r"Going on with What is the capital of France\? \(1 turn\)")
    terminal.sendline("/nonsense")
    terminal.expect("/nonsense is no command; /help lists them")
    terminal.sendline("/quit")
    terminal.expect("Goodbye!")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    saved = json.loads((tmp_path / "trip.json").read_text())
    assert [m["role"] for m in saved["messages"]] == ["user", "assistant"]


def test_ctrl_c_at_the_prompt_stays_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.expect("You:")
    terminal.send("half a line")
    terminal.sendintr()
    terminal.expect("You:")
    terminal.sendeof()
    terminal.expect("Goodbye!")
    terminal.expect(pexpect.EOF)


def test_what_is_piped_in_is_answered_plainly(parley: Parley, tmp_path: Path) -> None:
    done = piped(parley, tmp_path, "What is the capital of France?\n")
    assert done.returncode == 0
    assert "Paris" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_script_of_commands_is_obeyed_line_by_line(parley: Parley, tmp_path: Path) -> None:
    script = "/models\n/set temperature 0\nHello!\n/regenerate\n/list\n/quit\nhello after all\n"
    done = piped(parley, tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert "pocket" in done.stdout
    assert "Loaded" in done.stdout
    assert "after all" not in done.stdout


def test_a_message_and_what_is_piped_in_are_one(parley: Parley, tmp_path: Path) -> None:
    done = piped(parley, tmp_path, "the capital of France?", "What", "is")
    assert done.returncode == 0
    assert len(done.stdout.strip()) > 0


def test_nobody_there_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(PARLEY), "chat", "--url", "http://127.0.0.1:1", "Hi"],
        capture_output=True,
        text=True,
        env=surroundings(tmp_path),
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("parley: error: No service answers at http://127.0.0.1:1 (")
    assert done.stderr.count("\n") == 1


async def test_it_runs_inside_an_event_loop(
    parley: Parley, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop()  # there is one
    monkeypatch.setattr(sys, "argv", ["parley"])
    done = CliRunner().invoke(program, ["chat", "--url", parley.url, "Hello!"])
    assert done.exit_code == 0, done.output
    assert done.output.strip()
