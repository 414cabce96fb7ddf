"""A booted machine, deployed to by the project's own command."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.deploy.nginx import DEPLOY

SCRIPT = Path(__file__).with_name("machine.sh")
ROOT = DEPLOY.parent
TOOLS = ("systemd-nspawn", "debootstrap", "ssh", "nft", "ip")


def why_not() -> str | None:
    """Why no machine can be booted here; None when one can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"missing here: {', '.join(missing)}"
    return None if os.getuid() == 0 else "only root can boot a machine"


@dataclass
class Machine:
    """A machine at `address`. `ssh` is the command that gets there, `tree` what is deployed.

    `lab` is what machine.sh was told about it, `environment` what every deploy is told.
    """

    address: str
    ssh: str
    tree: Path
    lab: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def run(self, command: str, *, check: bool = True) -> str:
        """What `command` prints over there."""
        done = subprocess.run(
            [*self.ssh.split(), f"root@{self.address}", command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def deploy(
        self, tree: Path | None = None, doing: str = "install", user: str = "root", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """What `make deploy` or `make undeploy` does, from a clone of the repository."""
        return subprocess.run(
            [str((tree or self.tree) / "deploy" / "deploy.sh"), doing, f"{user}@{self.address}"],
            env={**os.environ, **self.environment, "SSH": self.ssh, "READY_TIMEOUT": "600", **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def give(self, file: Path, place: str) -> None:
        """Copy a file over there."""
        with file.open("rb") as content:
            subprocess.run(
                [*self.ssh.split(), f"root@{self.address}", f"cat > {place}"],
                stdin=content,
                check=True,
            )

    def reboot(self) -> None:
        machine_command("reboot", self.lab)
        self.wait_healthy()

    def token(self, name: str, *more: str) -> str:
        """A new access token."""
        return self.run(" ".join(["parley", "token", "create", "--name", name, *more]))

    def client(self, token: str = "") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(
            base_url=self.url,
            verify=False,  # noqa: S501  # its certificate is its own
            headers=headers,
            timeout=60,
        )

    def wait_healthy(self) -> None:
        self.run(
            "for i in $(seq 300); do "
            "curl -ksf -o /dev/null https://127.0.0.1/health && exit 0; sleep 0.2; done; exit 1"
        )


def machine_command(doing: str, lab: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(SCRIPT), doing],
        env={**os.environ, **lab},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def booted(tree: Path, **lab: str) -> Iterator[Machine]:
    """A machine that is up, and gone afterwards."""
    try:
        address = machine_command("up", lab)
        yield Machine(address, machine_command("ssh", lab), tree, lab)
    finally:
        machine_command("down", lab)


@contextmanager
def untouched(machine: Machine) -> Iterator[None]:
    """What serves there goes on in here: the same process, which answers afterwards."""
    pid = machine.run("systemctl show -P MainPID parley")
    yield
    assert machine.run("systemctl show -P MainPID parley") == pid
    machine.wait_healthy()


def clone(source: Path, directory: Path) -> Path:
    """What is committed in `source`, in a repository that nobody else commits to."""
    subprocess.run(["git", "clone", "-q", str(source), str(directory)], check=True)
    return directory


def successor(source: Path, directory: Path, *, broken: bool) -> Path:
    """A clone with one commit more, which works or does not."""
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    clone(source, directory)
    if broken:
        module = directory / "service" / "engine" / "__main__.py"
        module.write_text("raise SystemExit(1)\n")
    (directory / "CHANGELOG.md").write_text(f"{directory.name}\n")
    subprocess.run([*git, "-C", str(directory), "commit", "-qam", "one more"], check=True)
    return directory
