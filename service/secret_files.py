"""Secrets that lie in files: `PARLEY_X__Y_FILE=/path`, or a systemd credential named PARLEY_X__Y.

Reads no environment: settings.py does, and hands it in. The files are for the service alone, but
in the two places that others guard: systemd's credentials, and what a container runtime mounts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from service.domain.errors import ConfigurationError

SUFFIX = "_FILE"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
MAX_BYTES = 64 * 1024
# Not ours to judge: files here are 0444 in a name space that nobody else sees.
MOUNTED = Path("/run/secrets")


def files_of(environment: Mapping[str, str], variables: Iterable[str]) -> dict[str, Path]:
    """Where the secrets among `variables` (all in capitals) lie, of those that lie in files.

    Raises `ConfigurationError` for one that is given twice.
    """
    given = {name.upper(): text for name, text in environment.items() if text}
    folder = environment.get(CREDENTIALS)
    found: dict[str, Path] = {}
    for variable in variables:
        ways: dict[str, Path] = {}
        if named := given.get(variable + SUFFIX):
            ways[variable + SUFFIX] = Path(named).expanduser().absolute()
        if folder and (credential := Path(folder) / variable).exists():
            ways[f"the systemd credential {variable}"] = credential
        if len(names := [*([variable] if variable in given else []), *ways]) > 1:
            raise ConfigurationError(f"{' and '.join(names)} are both given; keep one.")
        for path in ways.values():
            found[variable] = path
    return found


def read_secrets(environment: Mapping[str, str], variables: Iterable[str]) -> dict[str, str]:
    """What the files say, by variable. Raises `ConfigurationError`, which repeats no content."""
    places = files_of(environment, variables)
    folder = environment.get(CREDENTIALS)
    guarded = [MOUNTED, *([Path(folder)] if folder else [])]
    return {variable: _read(variable, path, guarded) for variable, path in places.items()}


def _read(variable: str, path: Path, guarded: Iterable[Path]) -> str:
    try:
        # A pipe that nobody writes to would hold up the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, which no path opens
            mode = os.fstat(descriptor).st_mode
            content = file.read(MAX_BYTES + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise _refusal(variable, path, f"can't be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise _refusal(variable, path, "is not a file")
    if mode & 0o027 and not any(path.is_relative_to(place) for place in guarded):
        shown = f"{stat.S_IMODE(mode):04o}"
        raise _refusal(variable, path, f"is open to others ({shown}); `chmod 600 {path}` mends it")
    return _secret_in(variable, path, content)


def _secret_in(variable: str, path: Path, content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _refusal(variable, path, f"has more than the {MAX_BYTES} bytes that are read")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _refusal(variable, path, "is not text in UTF-8") from None
    if not text.strip():
        raise _refusal(variable, path, "is empty")
    if not text.isprintable():
        raise _refusal(variable, path, "has more than one line, or control characters")
    return text


def _refusal(variable: str, path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"The file {path} with {variable} {what}.")
