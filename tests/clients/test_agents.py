"""Codex and Claude Code themselves, with their own prompts and tools, on a real service.

Pocket understands none of it; what counts is that no request is refused, and that what the model
says arrives.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.agents import CLAUDE_CODE, CODEX, install_npm, write_long_pocket
from tests.clients.test_clients import requests_of
from tests.e2e.parley import Parley, running_parley
from tests.waiting import until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
_SECONDS = 400


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    directory = tmp_path_factory.mktemp("agents")
    model = directory / "long-pocket.gguf"
    write_long_pocket(model)
    variables = {
        "PARLEY_CHAT__ALIASES": "claude-*, gpt-*",
        "PARLEY_CHAT__MAX_TOKENS": "20",
        "PARLEY_ENGINE__CONTEXT_LENGTH": "49152",
        "PARLEY_ENGINE__SLOTS": "2",
        "PARLEY_LOG__FORMAT": "json",
    }
    with running_parley(directory, "--model", str(model), environment=variables) as service:
        service.wait_healthy()
        yield service


def run(home: Path, *command: str | Path, **variables: str) -> str:
    """What it prints, also where it ends with an error: it does, where an answer was cut."""
    work = home / "work"
    work.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    done = subprocess.run(
        command,
        check=False,
        cwd=work,
        env={**environment, "NO_PROXY": "127.0.0.1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    return done.stdout + done.stderr


def answered(parley: Parley, route: str, before: int) -> list[str]:
    lines = [line for line in requests_of(parley)[before:] if f'"{route}"' in line]
    assert all('"status": 200' in line for line in lines), lines
    return lines


def test_codex(parley: Parley, tmp_path: Path) -> None:
    program = install_npm(CODEX) / "@openai" / "codex" / "bin" / "codex.js"
    settings = tmp_path / ".codex" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(
        'model = "long-pocket"\nmodel_provider = "parley"\n[model_providers.parley]\n'
        f'name = "Parley"\nbase_url = "{parley.url}/v1"\nwire_api = "responses"\n'
        'env_key = "PARLEY_KEY"\n'
    )
    before = len(requests_of(parley))
    exec_once = ("exec", "--skip-git-repo-check", "Say hello.")
    told = run(tmp_path, "node", program, *exec_once, PARLEY_KEY="none")
    until(lambda: answered(parley, "/v1/responses", before))
    assert "is not supported" not in told


def test_claude_code(parley: Parley, tmp_path: Path) -> None:
    packages = install_npm(CLAUDE_CODE) / "@anthropic-ai"
    program = next(iter(packages.glob("claude-code-*/claude")), None)
    if program is None:
        pytest.skip("Claude Code has no program for this machine")
    before = len(requests_of(parley))
    told = run(
        tmp_path,
        program,
        *("-p", "Say hello.", "--tools", "Bash,Read"),
        ANTHROPIC_BASE_URL=parley.url,
        ANTHROPIC_API_KEY="none",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_AUTOUPDATER="1",
    )
    until(lambda: answered(parley, "/v1/messages", before))
    assert "API Error: 4" not in told, told  # that Pocket finds no end is said in other words
