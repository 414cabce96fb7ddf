"""Reading hash-locked requirement files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Locked:
    """One pinned package: its name, version, accepted SHA-256 sums, and its lines as they stand."""

    name: str
    version: str
    sha256: frozenset[str]
    text: str


def read_lock(path: Path) -> list[Locked]:
    """Return the packages of a lock file in order.

    Raises ValueError with one sentence when a requirement has no exact version or no hash: such a
    file would let pip install something that nobody has looked at.
    """
    return [_to_locked(path, block) for block in _blocks(path.read_text())]


def locked_package(path: Path, name: str) -> Locked:
    """Return the one package of that name; ValueError when the lock does not hold exactly one."""
    found = [package for package in read_lock(path) if package.name == name]
    if len(found) != 1:
        raise ValueError(f"{path} holds {name} {len(found)} times; exactly once is needed.")
    return found[0]


def _blocks(text: str) -> list[str]:
    """Split into requirements: a line that starts at the margin, and the indented ones after it."""
    blocks: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace() and blocks:
            blocks[-1] += line + "\n"
        else:
            blocks.append(line + "\n")
    return blocks


def _to_locked(path: Path, block: str) -> Locked:
    first = block.splitlines()[0].rstrip(" \\")
    pinned = _PINNED.match(first)
    sha256 = frozenset(_HASH.findall(block))
    if pinned is None or not sha256:
        raise ValueError(
            f"{path}: {first!r} is not locked; "
            "every line needs the form name==version with at least one --hash=sha256:…"
        )
    return Locked(pinned["name"], pinned["version"], sha256, block)
