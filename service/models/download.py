"""Fetches a model from the hub in a way that survives interruptions.

The hub's own client answers where the file is, how large, and with which checksum; the bytes are
read here, because that client starts every interrupted download from nothing. They go into a
`.part` file named after the version of the file, which is what the next attempt continues. Only a
complete and verified file gets its real name.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from httpx2 import HTTPError, Response
from huggingface_hub import (
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined] # exported lazily

from service.domain.errors import DownloadFailed
from service.models.registry import ModelSource

CHUNK_BYTES = 256 * 1024
SPARE_BYTES = 64 * 1024 * 1024  # left free on the disk for everybody else
READ_SECONDS = 20.0  # silence on an open connection that counts as a cut
ATTEMPTS = 5  # in a row that bring nothing new
RETRY_SECONDS = 60.0  # after which a failure that may pass is worth another attempt
WHAT_WOULD_WORK = "check the network and HF_ENDPOINT, or serve a file with --model PATH"

_SHA256 = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total (0 while unknown)."""


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The hub and the machine around a download; the defaults are the real ones.

    `endpoint`, `offline` and, where there is no `hub_token`, the access token follow the hub
    client's own variables (HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN). A hub that has not said within
    `patience_seconds` where the file is counts as unreachable.
    """

    endpoint: str = field(default_factory=lambda: constants.ENDPOINT)
    offline: bool = field(default_factory=constants.is_offline_mode)
    hub_token: str | None = field(default=None, repr=False)
    patience_seconds: float = 4.0
    free_bytes: Callable[[Path], int] = _free_bytes
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One version of a file on the hub. `size` is 0 and `sha256` None where the hub is silent."""

    label: str
    url: str
    version: str
    size: int
    sha256: str | None


def fetch(
    source: ModelSource,
    models_dir: Path,
    on_progress: Progress = lambda done, total: None,
    around: Surroundings | None = None,
) -> Path:
    """The path of the model's file, after fetching what is missing of it into `models_dir`.

    Blocks; meant for a process of its own, which may be killed at any moment. Raises
    `DownloadFailed` where the hub cannot be reached (within five seconds), refuses, or sends
    something else than it promised, and where the disk is too small; with `retry_after_seconds`
    where the same attempt may succeed later.
    """
    target = source.local_path(models_dir)
    if target.is_file() or not source.needs_hub:
        return target
    around = around or Surroundings()
    remote = _ask_hub(source, around)
    try:
        with _only_one(target):
            if not target.is_file():
                _complete(remote, target, on_progress, around)
    except OSError as error:
        raise _disk_trouble(target, error) from error
    return target


# ---------------------------------------------------------------- what the hub says


def _ask_hub(source: ModelSource, around: Surroundings) -> RemoteFile:
    label = f"{source.repo}:{source.file}"
    if around.offline:
        raise DownloadFailed(
            f"{label} is not on this machine and HF_HUB_OFFLINE forbids fetching it; "
            "unset it, or serve a file with --model PATH."
        )
    url = hf_hub_url(source.repo, source.file, endpoint=around.endpoint)
    try:
        found = _metadata(url, around)
    except HfHubHTTPError as error:
        raise _refused(label, around.endpoint, error) from error
    except (HTTPError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadFailed(
            f"The model hub at {around.endpoint} cannot be reached ({reason}); {WHAT_WOULD_WORK}.",
            retry_after_seconds=RETRY_SECONDS,
        ) from error
    if found.etag is None or found.commit_hash is None:
        raise DownloadFailed(
            f"{around.endpoint} does not answer like a model hub for {label}; "
            "check HF_ENDPOINT and whether a proxy or sign-in page is in the way."
        )
    pinned = hf_hub_url(
        source.repo, source.file, revision=found.commit_hash, endpoint=around.endpoint
    )
    sha256 = source.sha256 or (found.etag if _SHA256.fullmatch(found.etag) else None)
    return RemoteFile(label, pinned, found.etag, found.size or 0, sha256)


def _metadata(url: str, around: Surroundings) -> HfFileMetadata:
    """What the hub says of `url`.

    Asked in a thread, because looking up a host name has no time-out of its own. Raises
    `TimeoutError` when patience ends; the thread is left behind.
    """
    outcome: Future[HfFileMetadata] = Future()
    seconds = around.patience_seconds

    def ask() -> None:
        try:
            outcome.set_result(_metadata_now(url, around))
        except (HTTPError, OSError, ValueError) as error:
            outcome.set_exception(error)

    threading.Thread(target=ask, name="hub-metadata", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError as error:
        if outcome.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from error


def _metadata_now(url: str, around: Surroundings) -> HfFileMetadata:
    return get_hf_file_metadata(
        url, token=around.hub_token, timeout=around.patience_seconds, endpoint=around.endpoint
    )


def _refused(label: str, endpoint: str, error: HfHubHTTPError) -> DownloadFailed:
    status = error.response.status_code
    if status in (401, 403):
        return DownloadFailed(
            f"{endpoint} refuses {label} (HTTP {status}): it does not exist, or it needs an "
            "access token that may read it; set HF_TOKEN or PARLEY_MODEL__HUB_TOKEN_FILE."
        )
    if status == 404:
        return DownloadFailed(f"{label} does not exist on {endpoint}; check repository and file.")
    return DownloadFailed(
        f"{endpoint} answered HTTP {status} for {label}; try again later.",
        retry_after_seconds=RETRY_SECONDS,
    )


# ---------------------------------------------------------------- the bytes


def _complete(
    remote: RemoteFile, target: Path, on_progress: Progress, around: Surroundings
) -> None:
    """Bring `target` into being from its partial file. Called with the lock held."""
    part = target.with_name(f"{target.name}.{remote.version[:16]}.part")
    for stale in target.parent.glob(f"{target.name}.*.part"):
        if stale != part or _size(part) > remote.size > 0:
            stale.unlink()
    _refuse_full_disk(remote, part, around)
    if not remote.size or _size(part) < remote.size:
        _fill(remote, part, on_progress, around)
    _verify(remote, part)
    part.replace(target)


def _fill(remote: RemoteFile, part: Path, on_progress: Progress, around: Surroundings) -> None:
    """Read until `part` is as long as it should be, starting again where a connection is cut.

    Gives up after `ATTEMPTS` in a row that brought nothing.
    """
    failures = 0
    while True:
        done, cut = _size(part), None
        try:
            _continue(remote, part, on_progress, around.hub_token)
        except HfHubHTTPError as error:
            raise _refused(remote.label, around.endpoint, error) from error
        except HTTPError as error:
            cut = error
        if _size(part) >= remote.size and cut is None:
            return
        failures = 0 if _size(part) > done else failures + 1
        if failures >= ATTEMPTS:
            raise DownloadFailed(
                f"Fetching {remote.label} from {around.endpoint} broke off {ATTEMPTS} times in a "
                f"row ({str(cut) or type(cut).__name__}); the next attempt goes on from here.",
                retry_after_seconds=RETRY_SECONDS,
            ) from cut
        around.pause(min(2.0**failures, 10.0))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(remote: RemoteFile, part: Path, on_progress: Progress, hub_token: str | None) -> None:
    """Append to `part` what it lacks, from one response. Raises the HTTP client's errors."""
    done = _size(part)
    headers = build_hf_headers(token=hub_token, headers={"Accept-Encoding": "identity"})
    if done:
        headers["Range"] = f"bytes={done}-"
    with (
        get_session().stream("GET", remote.url, headers=headers, timeout=READ_SECONDS) as response,
        part.open("ab") as file,
    ):
        if response.status_code == 416:  # nothing behind what we have: it cannot be this file
            file.truncate(0)
            return
        hf_raise_for_status(response)
        if done and not _continues_at(response, done):
            file.truncate(0)
            done = 0
        on_progress(done, remote.size)
        for chunk in response.iter_bytes(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            on_progress(done, remote.size)


def _continues_at(response: Response, position: int) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status_code == 206 and found is not None and int(found[1]) == position


def _verify(remote: RemoteFile, part: Path) -> None:
    """Delete and refuse a file that is not what the hub or the catalogue promised."""
    size = part.stat().st_size
    if remote.size and size != remote.size:
        part.unlink()
        raise DownloadFailed(
            f"{remote.label} arrived with {size} bytes instead of {remote.size} and was deleted; "
            "try again.",
            retry_after_seconds=RETRY_SECONDS,
        )
    if remote.sha256 is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if found != remote.sha256:
        part.unlink()
        raise DownloadFailed(
            f"{remote.label} arrived with the SHA-256 {found} instead of {remote.sha256} "
            "and was deleted; try again, and distrust the source if it happens twice."
        )


# ---------------------------------------------------------------- the disk


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Hold the right to fetch `target`; the system takes it back when this process ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(target.name + ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadFailed(
                f"{target} is already being fetched by another process; wait for it.",
                retry_after_seconds=RETRY_SECONDS,
            ) from error
        yield


def _refuse_full_disk(remote: RemoteFile, part: Path, around: Surroundings) -> None:
    missing = remote.size - _size(part)
    free = around.free_bytes(part.parent)
    if missing > 0 and free < missing + SPARE_BYTES:
        raise DownloadFailed(
            f"{remote.label} needs {missing + SPARE_BYTES} more bytes in {part.parent}, "
            f"where {free} are free; make room, or set PARLEY_STATE_DIR to another disk.",
            retry_after_seconds=RETRY_SECONDS,
        )


def _disk_trouble(target: Path, error: OSError) -> DownloadFailed:
    what = "is full" if error.errno == errno.ENOSPC else f"cannot be used: {error.strerror}"
    return DownloadFailed(
        f"The directory {target.parent} {what}; make room there, or set PARLEY_STATE_DIR."
    )
