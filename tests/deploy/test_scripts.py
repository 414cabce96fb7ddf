"""The scripts as far as they go without a machine: their style, and what they would do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.nginx import DEPLOY

SCRIPTS = [
    path
    for path in sorted([*DEPLOY.rglob("*.sh"), *Path(__file__).parent.rglob("*.sh")])
    if "setup" not in path.parts
]


def deploy(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DEPLOY / "deploy.sh"), *words],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed here")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_no_finding(script: Path) -> None:
    done = subprocess.run(
        ["shellcheck", "-x", "-P", str(DEPLOY.parent), str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""


def test_no_host_is_one_sentence() -> None:
    done = deploy("install", "")
    assert done.returncode == 2
    assert done.stderr == "parley: no host is named; write: make deploy HOST=user@host\n"


def test_a_host_that_cannot_be_reached_is_one_sentence_and_its_own_code() -> None:
    done = deploy("install", "me@nowhere", SSH="false")
    assert done.returncode == 8
    assert "me@nowhere cannot be reached by ssh" in done.stderr


def test_a_user_without_sudo_is_one_sentence_and_its_own_code(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho neither\n")
    ssh.chmod(0o755)
    done = deploy("install", "me@host", SSH=str(ssh))
    assert done.returncode == 3
    assert "has no sudo without a password" in done.stderr


def test_a_dry_run_prints_commands_and_runs_none(tmp_path: Path) -> None:
    done = deploy("install", "me@host", DRY_RUN="1", SSH="false", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    for part in ("apt-get -qq update", "nginx -t -q", "systemctl restart parley.service"):
        assert any(part in line for line in printed), part
    assert not Path("/opt/parley/releases/dry").exists()


def test_undeploy_asks_first() -> None:
    done = deploy("remove", "me@host", SSH="echo root")
    assert done.returncode == 1
    assert "Type yes" in done.stderr
    assert "nothing was removed" in done.stderr
