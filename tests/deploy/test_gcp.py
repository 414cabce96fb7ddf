"""The steps to a machine on Google Cloud: as listed, and safe to repeat."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.nginx import DEPLOY

LISTING = Path(__file__).with_name("gcp_plan.txt")

# Remembers what was created, and breaks at the command whose words FAKE_BREAKS_AT names.
FAKE = """#!/usr/bin/env python3
import json, os, pathlib, sys
state = pathlib.Path(os.environ["FAKE_STATE"])
words = sys.argv[1:]
made = json.loads(state.read_text()) if state.exists() else []
verb = next(w for w in words if w in ("create", "describe", "delete", "ssh"))
kind = " ".join(words[: words.index(verb)])
breaks_at = os.environ.get("FAKE_BREAKS_AT")
if breaks_at and verb == "create" and kind.endswith(breaks_at):
    sys.exit("ERROR: quota exceeded")
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(f"{kind} {verb}\\n")
what = words[words.index(verb) + 1].split("@")[0]
if verb == "describe":
    sys.exit(0 if [kind, what] in made else "ERROR: not found")
if verb == "create":
    made.append([kind, what])
if verb == "delete":
    made.remove([kind, what])
state.write_text(json.dumps(made))
"""


@dataclass(frozen=True)
class Cloud:
    """A `gcloud` on PATH that remembers."""

    directory: Path

    def run(self, doing: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(DEPLOY / "gcp" / "vm.sh"), doing],
            env={
                "PATH": f"{self.directory}:{os.environ['PATH']}",
                "FAKE_STATE": str(self.directory / "state.json"),
                "FAKE_LOG": str(self.directory / "log"),
                "PROJECT": "p1",
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def made(self) -> list[str]:
        found = json.loads((self.directory / "state.json").read_text())
        return [kind for kind, _ in found]

    @property
    def log(self) -> list[str]:
        return (self.directory / "log").read_text().splitlines()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(FAKE)
    gcloud.chmod(0o755)
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


@pytest.mark.parametrize("step", ["addresses", "firewall-rules", "instances"])
def test_a_run_that_broke_off_is_continued(cloud: Cloud, step: str) -> None:
    broken = cloud.run("create", FAKE_BREAKS_AT=step)
    assert broken.returncode != 0
    assert "quota exceeded" in broken.stderr
    assert cloud.run("create").returncode == 0
    assert cloud.made == EVERYTHING
    assert sum(line.endswith("create") for line in cloud.log) == len(EVERYTHING)


def test_delete_takes_the_machine_and_says_what_it_keeps(cloud: Cloud) -> None:
    cloud.run("create")
    done = cloud.run("delete")
    assert done.returncode == 0
    assert "compute instances" not in cloud.made
    assert "are kept" in done.stderr
    assert cloud.run("delete").returncode == 0


def test_a_gpu_gets_its_driver_and_stays_where_it_is(cloud: Cloud) -> None:
    planned = cloud.run("plan", GPU="nvidia-l4", MACHINE="g2-standard-8").stdout
    assert "--accelerator=type=nvidia-l4,count=1" in planned
    assert "startup-script=" in planned
    assert "--maintenance-policy=TERMINATE" in planned


def test_no_project_is_one_sentence(cloud: Cloud) -> None:
    done = cloud.run("create", PROJECT="")
    assert done.returncode == 2
    assert done.stderr.startswith("parley: PROJECT is not set")
