"""The shell script behind make, on machines that lack something."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["deploy/setup/prepare", "deploy/setup/check", "deploy/setup/lock", ".ci/run"]
ALWAYS_THERE = ["sh", "dirname", "tr", "ls", "env", "cat", "touch", "chmod"]
TOOLS = ["gcc", "g++", "cmake", "ninja", "pkg-config"]


@dataclass
class Machine:
    """A machine that has only the commands that a test puts on its PATH."""

    root: Path
    bin: Path

    def has(self, name: str, script: str = "exit 0") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def prepare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "deploy/setup/prepare"), *arguments],
            env={"PATH": str(self.bin), "HOME": str(self.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "clone", tmp_path / "bin")
    (machine.root / "deploy/setup").mkdir(parents=True)
    shutil.copy(ROOT / "deploy/setup/prepare", machine.root / "deploy/setup/prepare")
    machine.bin.mkdir()
    for name in ALWAYS_THERE:
        (machine.bin / name).symlink_to(str(shutil.which(name)))
    machine.has("id", "echo 1000")
    return machine


def test_when_nothing_changed_it_only_looks(machine: Machine) -> None:
    (machine.root / ".venv/bin").mkdir(parents=True)
    python = machine.root / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$@" >>{machine.root}/calls\n')
    python.chmod(0o755)
    done = machine.prepare()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (machine.root / "calls").read_text() == "-E -s -m deploy.setup --check\n"


def test_without_root_it_prints_the_one_command_to_paste(machine: Machine) -> None:
    machine.has("apt-get")
    machine.has("apt-cache", "exit 1")
    done = machine.prepare()
    assert done.returncode == 2
    sentence, command = done.stderr.splitlines()
    assert "needs root" in sentence
    assert re.match(
        r"    sudo apt-get update && sudo apt-get install -y --no-install-recommends "
        r"build-essential cmake ninja-build pkg-config (libopenblas-dev )?python3\.11 "
        r"python3\.11-venv$",
        command,
    )


def test_without_apt_it_says_what_to_install_by_hand(machine: Machine) -> None:
    done = machine.prepare()
    assert done.returncode == 2
    assert "installs packages through apt" in done.stderr
    assert "cmake" in done.stderr


@pytest.mark.parametrize("who", ["root", "sudo"])
def test_with_root_or_sudo_it_installs_what_is_missing_and_goes_on(
    machine: Machine, who: str
) -> None:
    for name in TOOLS:
        machine.has(name)
    (machine.bin / "cmake").unlink()
    python = f'case $1 in -c) echo 11;; -E) echo "$@" >>{machine.root}/calls;; esac'
    machine.has("python3", python)
    machine.has(
        "apt-get",
        f"""echo "$@" >>{machine.root}/apt
        case "$*" in *cmake) touch {machine.bin}/cmake; chmod +x {machine.bin}/cmake ;; esac""",
    )
    machine.has("id", "echo 0" if who == "root" else "echo 1000")
    if who == "sudo":
        machine.has("sudo", 'shift; case $1 in true) ;; *) "$@" ;; esac')
    done = machine.prepare()
    assert done.returncode == 0, done.stderr
    update, install = (machine.root / "apt").read_text().splitlines()
    assert update == "-qq -y update"
    assert install == "-qq -y install --no-install-recommends cmake"
    assert (machine.root / "calls").read_text() == "-E -s -m deploy.setup\n"


def test_a_package_that_apt_cannot_install_is_named_with_apts_own_words(machine: Machine) -> None:
    machine.has("apt-get", "echo 'E: Unable to locate package'; exit 100")
    machine.has("apt-cache", "exit 1")
    machine.has("id", "echo 0")
    done = machine.prepare()
    assert done.returncode == 2
    assert "E: Unable to locate package" in done.stderr
    assert "could not install build-essential" in done.stderr


def test_the_newest_python_that_works_is_chosen(machine: Machine) -> None:
    for name in TOOLS:
        machine.has(name)
    for name, minor in {"python3": 10, "python3.11": 11, "python3.12": 12}.items():
        machine.has(
            name, f"case $1 in -c) echo {minor};; *) echo {minor} >{machine.root}/ran;; esac"
        )
    machine.has("python3.13", "exit 127")
    assert machine.prepare().returncode == 0
    assert (machine.root / "ran").read_text() == "12\n"


def test_an_unknown_option_is_refused_by_name(machine: Machine) -> None:
    done = machine.prepare("--fast")
    assert (done.returncode, done.stderr) == (
        2,
        "prepare: unknown option '--fast'; accepted: --dev\n",
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_shell_scripts_parse_and_pass_shellcheck_where_there_is_one(script: str) -> None:
    text = (ROOT / script).read_text()
    shell = "bash" if "bash" in text.splitlines()[0] else "sh"
    checkers = [[shell, "-n"], *([["shellcheck"]] if shutil.which("shellcheck") else [])]
    for checker in checkers:
        done = subprocess.run([*checker, script], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_every_make_target_is_short_and_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)*)", makefile, flags=re.MULTILINE)
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = {"help", "install", "run", "test", "check", "fmt", "bench", "clean", "pocket"}
    assert wanted <= {name for name, _ in targets}
    for name, recipe in targets:
        assert 1 <= len(recipe.splitlines()) <= 3, name
        assert f"make {name}" in shown
