"""The units, as systemd's own tools see them, and what they promise about the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.cli.config import example_file
from service.settings import Settings
from service.supervisor.supervisor import ENGINE_GRACE_SECONDS, HTTP_GRACE_SECONDS
from tests.deploy.nginx import DEPLOY

UNIT = DEPLOY / "systemd" / "parley.service"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed here"
)


def directives(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


@needs_systemd
def test_systemd_accepts_the_unit_with_every_drop_in(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/parley/current/.venv/bin/parley", "/bin/true")
    (tmp_path / "parley.service").write_text(text)
    folder = tmp_path / "parley.service.d"
    folder.mkdir()
    for name in ("gpu.conf", "offline.conf", "secrets.conf"):
        shutil.copy(DEPLOY / "systemd" / name, folder)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "parley.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "parley" in line]
    assert (done.returncode, about_ours) == (0, [])


@needs_systemd
def test_systemd_accepts_the_nightly_copy_and_exposes_little_of_it(tmp_path: Path) -> None:
    service = DEPLOY / "systemd" / "parley-backup.service"
    text = service.read_text().replace("/opt/parley/current/.venv/bin/parley", "/bin/true")
    (tmp_path / "parley-backup.service").write_text(text)
    timer = shutil.copy(DEPLOY / "systemd" / "parley-backup.timer", tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(timer)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "parley" in line]
    assert (done.returncode, about_ours) == (0, [])
    assert exposure(service) <= 1.5


def exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


@needs_systemd
def test_the_service_is_exposed_as_little_as_can_be() -> None:
    assert exposure(UNIT) <= 2.0


@needs_systemd
def test_nginx_is_exposed_less_than_the_distribution_leaves_it(tmp_path: Path) -> None:
    unit = tmp_path / "nginx.service"
    head = "[Unit]\nDescription=nginx\n"
    hardening = (DEPLOY / "nginx" / "hardening.conf").read_text()
    unit.write_text(f"{head}{hardening}\nType=forking\nExecStart=/bin/true\n")
    assert exposure(unit) <= 3.0


def test_systemd_waits_longer_than_the_service_drains() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    (stop,) = directives(UNIT)["TimeoutStopSec"]
    assert int(stop) >= drain + ENGINE_GRACE_SECONDS + HTTP_GRACE_SECONDS


def test_the_example_file_is_the_table_of_settings() -> None:
    assert (DEPLOY / "systemd" / "parley.env.example").read_text() == example_file()


@pytest.mark.parametrize(
    "path",
    [*sorted((DEPLOY / "systemd").glob("*.service")), *sorted(DEPLOY.glob("*/*hardening.conf"))],
    ids=lambda path: path.name,
)
def test_comments_say_why(path: Path) -> None:
    """No more than a handful of directives in a row that no comment stands above."""
    bare, longest = 0, 0
    for line in path.read_text().splitlines():
        bare = 0 if line.startswith("#") or not line else bare + ("=" in line)
        longest = max(longest, bare)
    assert longest <= 7
