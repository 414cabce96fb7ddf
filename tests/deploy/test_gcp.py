"""The steps to a machine on Google Cloud: as listed, and safe to repeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.nginx import DEPLOY

LISTING = Path(__file__).with_name("gcp_plan.txt")

# Remembers what was created, and breaks at the command whose words FAKE_BREAKS_AT names. Over ssh
# it is a machine that lets nobody in at first (FAKE_BOOTING times), then takes what it is sent.
FAKE = (
    f"#!{sys.executable} -IS"
    + """
import json, os, pathlib, sys
state = pathlib.Path(os.environ["FAKE_STATE"])
words = sys.argv[1:]
found = json.loads(state.read_text()) if state.exists() else {"made": [], "knocks": 0}
made = found["made"]
verb = next(w for w in words if w in ("create", "describe", "delete", "ssh"))
kind = " ".join(words[: words.index(verb)])
what = words[words.index(verb) + 1].split("@")[0]
if os.environ.get("FAKE_BREAKS_AT") == f"{kind} {verb}":
    sys.exit("ERROR: quota exceeded")
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(f"{kind} {verb}\\n")
code = 0
if verb == "describe":
    sys.exit(0 if [kind, what] in made else "ERROR: not found")
if verb == "create":
    made.append([kind, what])
if verb == "delete":
    made.remove([kind, what])
if verb == "ssh":
    command = next(w for w in words if w.startswith("--command="))
    found["knocks"] += 1
    if found["knocks"] <= int(os.environ.get("FAKE_BOOTING", "0")):
        code = 255
    elif "install.sh" in command:
        sent = sys.stdin.buffer.read()
        found["sent"], found["command"] = len(sent), command
        print("the-first-token")
        code = int(os.environ.get("FAKE_INSTALL", "0"))
    else:
        print("sudo")
state.write_text(json.dumps(found))
sys.exit(code)
"""
)


@dataclass(frozen=True)
class Cloud:
    """A `gcloud` on PATH that remembers."""

    directory: Path

    def run(self, doing: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self._run([str(DEPLOY / "gcp" / "vm.sh"), doing], **variables)

    def deploy(self, doing: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """What `make deploy PROJECT=` and `make undeploy PROJECT=` do."""
        return self._run([str(DEPLOY / "deploy.sh"), doing, ""], **variables)

    def _run(self, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={
                "PATH": f"{self.directory}:{os.environ['PATH']}",
                "HOME": str(self.directory),
                "FAKE_STATE": str(self.directory / "state.json"),
                "FAKE_LOG": str(self.directory / "log"),
                "PROJECT": "p1",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "state.json").read_text())
        return found

    @property
    def made(self) -> list[str]:
        return [kind for kind, _ in self.state["made"]]

    @property
    def log(self) -> list[str]:
        return (self.directory / "log").read_text().splitlines()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    for name, script in (("gcloud", FAKE), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return Cloud(tmp_path)


EVERYTHING = [
    "iam service-accounts",
    "compute addresses",
    "compute firewall-rules",
    "compute firewall-rules",
    "compute instances",
]


def test_the_plan_is_the_listing(cloud: Cloud) -> None:
    done = cloud.run("plan")
    assert (done.returncode, done.stdout) == (0, LISTING.read_text())
    assert not (cloud.directory / "log").exists()


def test_a_second_run_creates_nothing(cloud: Cloud) -> None:
    assert cloud.run("create").returncode == 0
    assert cloud.made == EVERYTHING
    assert cloud.run("create").returncode == 0
    assert sum(line.endswith("create") for line in cloud.log) == len(EVERYTHING)


@pytest.mark.parametrize("kind", sorted(set(EVERYTHING)))
def test_a_run_that_broke_off_is_continued(cloud: Cloud, kind: str) -> None:
    broken = cloud.run("create", FAKE_BREAKS_AT=f"{kind} create")
    assert broken.returncode != 0
    assert "quota exceeded" in broken.stderr
    assert cloud.run("create").returncode == 0
    assert cloud.made == EVERYTHING
    assert sum(line.endswith("create") for line in cloud.log) == len(EVERYTHING)


def test_a_deploy_makes_the_machine_waits_for_it_and_installs(cloud: Cloud) -> None:
    done = cloud.deploy("install", FAKE_BOOTING="3", DOMAIN="a.example", EMAIL="me@a.example")
    assert (done.returncode, done.stdout) == (0, "the-first-token\n"), done.stderr
    assert cloud.made == EVERYTHING
    assert cloud.state["sent"] > 1_000_000
    assert "DOMAIN='a.example' EMAIL='me@a.example'" in cloud.state["command"]
    assert "sudo -n env" in cloud.state["command"]


def test_a_machine_that_never_lets_anybody_in_is_one_sentence(cloud: Cloud) -> None:
    done = cloud.deploy("install", FAKE_BOOTING="1000", BOOT_TIMEOUT="0")
    assert done.returncode == 8
    assert "parley cannot be reached by ssh" in done.stderr


def test_an_installation_that_failed_is_told_by_its_code_and_goes_on_next_time(
    cloud: Cloud,
) -> None:
    assert cloud.deploy("install", FAKE_INSTALL="5").returncode == 5
    assert cloud.deploy("install").returncode == 0
    assert cloud.made == EVERYTHING


def test_undeploy_asks_and_then_takes_all_of_it_away(cloud: Cloud) -> None:
    cloud.run("create")
    asked = cloud.deploy("remove")
    assert asked.returncode == 1
    assert "Delete the machine parley in p1, with its disk" in asked.stderr
    assert cloud.made == EVERYTHING
    assert cloud.deploy("remove", YES="1").returncode == 0
    assert cloud.made == []


@pytest.mark.parametrize("kind", sorted(set(EVERYTHING)))
def test_an_undeploy_that_broke_off_is_continued(cloud: Cloud, kind: str) -> None:
    cloud.run("create")
    assert cloud.deploy("remove", YES="1", FAKE_BREAKS_AT=f"{kind} delete").returncode != 0
    assert cloud.made
    assert cloud.deploy("remove", YES="1").returncode == 0
    assert cloud.made == []


def test_a_dry_undeploy_prints_what_would_go(cloud: Cloud) -> None:
    done = cloud.deploy("remove", DRY_RUN="1")
    assert done.stdout.count("+ gcloud") == len(EVERYTHING)
    assert not (cloud.directory / "log").exists()


def test_a_gpu_gets_its_driver_and_stays_where_it_is(cloud: Cloud) -> None:
    planned = cloud.run("plan", GPU="nvidia-l4", MACHINE="g2-standard-8").stdout
    assert "--accelerator=type=nvidia-l4,count=1" in planned
    assert "startup-script=" in planned
    assert "--maintenance-policy=TERMINATE" in planned


def test_no_project_is_one_sentence(cloud: Cloud) -> None:
    done = cloud.run("create", PROJECT="")
    assert done.returncode == 2
    assert done.stderr.startswith("parley: PROJECT is not set")
