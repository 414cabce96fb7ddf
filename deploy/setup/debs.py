"""The distribution's packages that the installer takes, with all they need, as a repository."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from pathlib import Path

from deploy.setup.commands import Failure, say
from deploy.setup.wheels import scratch

# As in install.sh and release.sh; a Python new enough is what find_python looks for.
WANTED = (
    *("nginx", "openssl", "curl", "ca-certificates", "iproute2"),
    *("libopenblas0", "libgomp1"),
)


def provide_debs(cache: Path, target: Path) -> None:
    """Fill `target`/ID-RELEASE with packages and their index, for machines of this distribution.

    They are all that the wanted ones need on a machine that has nothing at all. Where this machine
    has no apt nothing is put there, and a sentence says so. Raises Failure.
    """
    if shutil.which("apt-get") is None:
        say("no apt here: the bundle holds no packages of the distribution")
        return
    folder = target / distribution()
    folder.mkdir(parents=True)
    with scratch(cache) as space:
        (space / "partial").mkdir()
        (space / "nothing-installed").touch()
        say("fetching the packages of the distribution")
        _run(
            *("apt-get", "-qq", "-y", "--no-install-recommends", "--download-only"),
            *("-o", f"Dir::State::status={space}/nothing-installed"),
            *("-o", f"Dir::Cache::archives={space}"),
            *("-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"),
            *("install", *WANTED, *_python_packages()),
        )
        for file in space.glob("*.deb"):
            shutil.copy(file, folder / file.name.replace("%3a", "_"))
    (folder / "Packages").write_text("".join(_entry(file) for file in sorted(folder.iterdir())))


def distribution() -> str:
    """Return what the folder of packages is called: "debian-12"."""
    facts = platform.freedesktop_os_release()
    return f"{facts['ID']}-{facts.get('VERSION_ID', 'unknown')}"


def _python_packages() -> tuple[str, ...]:
    """Return the distribution's Python with venv: its default where that is new enough."""
    shown = _run("apt-cache", "depends", "--no-recommends", "--no-suggests", "python3")
    default = next((w for w in shown.split() if w.startswith("python3.")), "python3.0")
    if int(default.split(".")[1].split("-")[0]) >= 11:
        return "python3", "python3-venv"
    return "python3", "python3.11", "python3.11-venv"


def _entry(file: Path) -> str:
    """Return a package's paragraph in the repository's index."""
    content = file.read_bytes()
    control = _run("dpkg-deb", "--field", str(file)).rstrip("\n")
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}\nFilename: ./{file.name}\nSize: {len(content)}\nSHA256: {digest}\n\n"


def _run(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failure(f"{done.stderr.strip()}\n{command[0]} failed; the lines above say why.")
    return done.stdout
