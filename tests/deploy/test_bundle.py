"""One file, carried to a machine without a network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Bundle
from tests.deploy.machine import ROOT, Machine, booted, clone, why_not

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    cellar = {"MACHINE": "cellar", "MACHINE_SUBNET": "198.18.8", "MACHINE_NET": "none"}
    with booted(clone(ROOT, tmp_path_factory.mktemp("cellar") / "tree"), **cellar) as machine:
        yield machine


def test_a_damaged_bundle_is_one_sentence_and_nothing_changes(
    machine: Machine, bundle: Bundle
) -> None:
    machine.give(bundle.file, "/root/bundle.tar")
    damage = "echo x >> $(ls /root/parley-*/wheels/uvloop*.whl | head -1)"
    machine.run(f"tar -C /root -xf /root/bundle.tar; {damage}")
    said = machine.run("/root/parley-*/install 2>&1; echo $?", check=False)
    assert said.endswith("copy it here again. Nothing was changed.\n2"), said
    assert machine.run("ls /opt; rm -rf /root/parley-*") == ""


def test_it_installs_and_answers_where_there_is_no_network(
    machine: Machine, bundle: Bundle
) -> None:
    assert "default" not in machine.run("ip route")
    done = machine.run("tar -C /root -xf /root/bundle.tar; /root/parley-*/install 2>/root/log")
    with machine.client(done) as client:
        reply = client.post("/chat", json={"message": "What is the capital of France?"})
    assert "Paris" in reply.json()["response"]
    assert "PARLEY_MODEL__OFFLINE=true" in machine.run("cat /etc/parley/parley.env")
    there = json.loads(machine.run("cat /opt/parley/current/sbom.cdx.json"))
    assert there == json.loads((bundle.folder / "sbom.cdx.json").read_text())


def test_the_same_from_afar_changes_nothing(machine: Machine, bundle: Bundle) -> None:
    done = machine.deploy(BUNDLE=str(bundle.file))
    assert done.returncode == 0, done.stderr
    assert "nothing had to be changed" in done.stderr


def test_another_file_is_no_bundle(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("x")
    done = machine.deploy(BUNDLE=str(tmp_path / "x.tar"))
    assert done.returncode == 2
    assert "is not what 'make bundle' makes" in done.stderr


def test_what_is_in_it_is_what_its_sums_say(bundle: Bundle) -> None:
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle.folder, check=True)
    listed = {
        line.split("  ", 1)[1] for line in (bundle.folder / "SHA256SUMS").read_text().splitlines()
    }
    there = {str(p.relative_to(bundle.folder)) for p in bundle.folder.rglob("*") if p.is_file()}
    assert there - listed == {"SHA256SUMS"}
