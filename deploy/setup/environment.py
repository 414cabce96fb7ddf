"""The virtual environment: what should be in it, whether it is, and putting it there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from deploy.setup.commands import Failure, Pip, say
from deploy.setup.locks import locked_package, read_lock
from deploy.setup.wheels import (
    cache_directory,
    processor,
    provide_portable_wheel,
    provide_wheel,
    wheel_key,
)

COMPILED = "llama-cpp-python"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A clone of the repository and the files in it that decide what gets installed."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """Says what the environment was last made from; written only when all of it stands."""
        return self.venv / "parley-setup.json"

    @property
    def run_lock(self) -> Path:
        return self.root / "requirements.lock"

    def locks(self, dev: bool) -> list[Path]:
        """Return the lock files to install; the one for development holds the other's too."""
        first = self.root / "requirements-dev.lock" if dev else self.run_lock
        return [first, self.root / "requirements-build.lock"]

    def wanted(self, dev: bool) -> dict[str, str]:
        """Return the facts that a finished environment was made from."""
        inputs = [self.run_lock, *self.locks(dev), self.root / "pyproject.toml"]
        sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs}
        return sums | {
            "root": str(self.root),
            "python": sysconfig.get_python_version() + " " + sys.base_prefix,
            "wheel": wheel_key(locked_package(self.run_lock, COMPILED), processor()),
        }

    def found(self) -> dict[str, str]:
        """Return what the environment says it was made from; nothing when it was never finished."""
        try:
            content = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def is_ready(self, dev: bool) -> bool:
        """True when there is nothing to do: everything wanted is what was found."""
        return self.wanted(dev).items() <= self.found().items()


def prepare(checkout: Checkout, dev: bool) -> None:
    """Make the environment hold exactly what the locks say, and `parley` itself.

    Does nothing, quickly, when that is so already. Raises Failure with a sentence otherwise.
    """
    if checkout.is_ready(dev):
        return
    wanted, found = checkout.wanted(dev), checkout.found()
    if any(found.get(fact) != wanted[fact] for fact in ("root", "python")):
        _make_venv(checkout)
        found = {}
    checkout.stamp.unlink(missing_ok=True)
    pip = Pip(checkout.python)
    for lock in checkout.locks(dev):
        if found.get(lock.name) == wanted[lock.name]:
            continue
        _install_lock(checkout, lock, pip)
    if found.get("wheel") != wanted["wheel"]:
        _install_compiled(checkout, pip)
    say("installing parley itself")
    pip.run(
        "installing parley",
        *("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--editable", str(checkout.root)),
    )
    kept = found if found.get("requirements.lock") == wanted.get("requirements.lock") else {}
    checkout.stamp.write_text(json.dumps(kept | wanted, indent=1) + "\n")


def portable_wheel(checkout: Checkout) -> Path:
    """Return a llama.cpp that runs on any processor of this architecture; the environment, which
    has to stand, compiles it the first time. Raises Failure."""
    cache = cache_directory(os.environ, Path.home())
    package = locked_package(checkout.run_lock, COMPILED)
    return provide_portable_wheel(package, cache, Pip(checkout.python))


def _make_venv(checkout: Checkout) -> None:
    """Create `.venv` anew, with an interpreter that does not live inside the old one."""
    base = getattr(sys, "_base_executable", sys.executable)
    say(f"making .venv with Python {sysconfig.get_python_version()}")
    done = subprocess.run(
        [base, "-m", "venv", "--clear", str(checkout.venv)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failure(f"{done.stdout}{done.stderr}{base} could not make {checkout.venv}.")


def _install_lock(checkout: Checkout, lock: Path, pip: Pip) -> None:
    packages = [package for package in read_lock(lock) if package.name != COMPILED]
    chosen = checkout.venv / f"without-compiled-{lock.name}"
    chosen.write_text("".join(package.text for package in packages))
    say(f"installing what {lock.name} holds ({len(packages)} packages)")
    pip.run(
        f"installing {lock.name}",
        *("install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--requirement", str(chosen)),
    )


def _install_compiled(checkout: Checkout, pip: Pip) -> None:
    cache = cache_directory(os.environ, Path.home())
    wheel = provide_wheel(locked_package(checkout.run_lock, COMPILED), cache, pip)
    say(f"installing {wheel.name} from the cache")
    pip.run(
        f"installing {wheel}",
        *("install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)),
    )
    loaded = subprocess.run(
        [str(checkout.python), "-c", "import llama_cpp"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if loaded.returncode != 0:
        raise Failure(
            f"{loaded.stderr}{wheel} does not load here; delete it and repeat to compile it again."
        )
