"""`make bundle`: one file that installs Parley on a machine without a network.

dist/parley-VERSION-ARCHITECTURE.tar, with one folder of that name, in which there are
  install          checks the sums, then runs tree/deploy/install.sh
  tree/            the committed state of this clone
  wheels/          every locked package, for each Python named
  cache/wheels/    llama.cpp, compiled for any processor of this architecture
  debs/ID-RELEASE/ what the installer takes from this machine's distribution, with an index
  models/          the model that it shall serve; Pocket is in the package already
  sbom.cdx.json    what all of that is, and under which licences
  SHA256SUMS       of everything above
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from deploy.setup.commands import Failure, Pip, say
from deploy.setup.debs import provide_debs
from deploy.setup.environment import Checkout, portable_wheel
from deploy.setup.locks import read_lock
from deploy.setup.sbom import bill, read_wheel
from deploy.setup.wheelhouse import provide_wheels
from deploy.setup.wheels import cache_directory, scratch

PYTHONS = ("3.11", "3.12", "3.13")
POCKET = Path("service/models/pocket.gguf")


def version_of(root: Path) -> str:
    """Return the version of the committed state, as deploy.sh names releases."""
    number = re.search(r'^__version__ = "(.+)"', (root / "service/__init__.py").read_text(), re.M)
    if number is None:
        raise Failure(f"{root}/service/__init__.py names no __version__.")
    return f"{number[1]}-{_git(root, 'rev-parse', '--short=10', 'HEAD').decode().strip()}"


def make_bundle(checkout: Checkout, model: str, pythons: list[str], into: Path) -> Path:
    """Return the finished bundle in the folder `into`. Raises Failure or OSError; nothing is left
    half done."""
    cache = cache_directory(os.environ, Path.home())
    compiled = portable_wheel(checkout)
    version = version_of(checkout.root)
    if _git(checkout.root, "status", "--porcelain", "--untracked-files=no"):
        say("what is not committed stays here")
    name = f"parley-{version}-{platform.machine()}"
    with scratch(cache) as space:
        folder = space / name
        folder.mkdir()
        _unpack_tree(checkout.root, folder / "tree")
        offered = folder / "cache" / "wheels" / compiled.parent.name
        offered.mkdir(parents=True)
        shutil.copy(compiled, offered)
        _copy_wheels(checkout, cache, folder / "wheels", pythons)
        provide_debs(cache, folder / "debs")
        models = _copy_model(checkout, folder, model)
        wheels = [read_wheel(path) for path in folder.rglob("*.whl")]
        made = datetime.now(tz=UTC)
        found = bill(wheels, read_lock(checkout.run_lock), models, version, made)
        (folder / "sbom.cdx.json").write_text(json.dumps(found, indent=1) + "\n")
        (folder / "version").write_text(f"{version}\n")
        shutil.copy(checkout.root / "deploy" / "bundle.sh", folder / "install")
        (folder / "install").chmod(0o755)
        _write_sums(folder)
        return _pack(folder, into / f"{name}.tar")


def _git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    if done.returncode != 0:
        raise Failure(f"git {words[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _unpack_tree(root: Path, tree: Path) -> None:
    archive = tree.with_suffix(".archive")
    _git(root, "archive", f"--output={archive}", "HEAD")
    with tarfile.open(archive) as file:
        file.extractall(tree, filter="data")
    archive.unlink()


def _copy_wheels(checkout: Checkout, cache: Path, folder: Path, pythons: list[str]) -> None:
    folder.mkdir()
    locks = [checkout.run_lock, checkout.root / "requirements-build.lock"]
    for python in pythons:
        for wheel in provide_wheels(locks, python, cache, Pip(checkout.python)).glob("*.whl"):
            shutil.copy(wheel, folder)


def _copy_model(checkout: Checkout, folder: Path, model: str) -> list[Path]:
    """Put the model's file and its name where the installer looks; all models in the bundle."""
    pocket = folder / "tree" / POCKET
    if model == "pocket":
        (folder / "model").write_text("pocket\n")
        return [pocket]
    path = Path(model)
    if not path.is_file():
        raise Failure(
            f"MODEL={model} is not a file; name a GGUF file, such as 'parley model pull' leaves in"
            " the state directory, or leave it out for Pocket."
        )
    (folder / "models").mkdir()
    copy = shutil.copy(path, folder / "models")
    (folder / "model").write_text(f"/var/lib/parley/models/{path.name}\n")
    return [pocket, Path(copy)]


def _write_sums(folder: Path) -> None:
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(folder)}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


def _pack(folder: Path, target: Path) -> Path:
    """Write the tar with root as every file's owner, and put it in place in one step."""

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    packed = folder.with_suffix(".packed")
    with tarfile.open(packed, "w") as file:
        file.add(folder, folder.name, filter=owned_by_root)
    target.parent.mkdir(exist_ok=True)
    shutil.move(packed, target)
    return target


def main(arguments: list[str]) -> int:
    """Make the bundle and print where it is."""
    parser = argparse.ArgumentParser(prog="make bundle", description=main.__doc__)
    parser.add_argument("--model", default="pocket", help="a GGUF file that it shall serve")
    parser.add_argument("--python", action="append", help="a Python version, such as 3.12")
    options = parser.parse_args(arguments)
    pythons = options.python or list(PYTHONS)
    try:
        made = make_bundle(Checkout(Path.cwd()), options.model, pythons, Path("dist"))
    except (Failure, OSError, ValueError) as error:
        say(str(error))
        return 2
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
