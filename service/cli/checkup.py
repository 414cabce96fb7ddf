"""What can be wrong around the service, looked at one by one; nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from service.cli.deployment import examine_deployment
from service.cli.finding import Finding, Verdict, ask
from service.cli.health import UnixConnection
from service.domain.amounts import amount
from service.domain.errors import ServiceError
from service.models.gguf import check_model_file
from service.models.registry import resolve
from service.settings import Settings
from service.store.database import check_store, store_url

NVIDIA = Path("/proc/driver/nvidia/version")
_WRITTEN = Path(__file__)
_DAY_SECONDS = 86400
_FEW_BYTES = 2 * 1024**3
_SECONDS = 10.0


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn. None of them tells a secret."""
    for check in (_model, _memory, _processor, _graphics, _disk, _store, _port, _clock):
        yield check(settings)
    yield from examine_deployment()


def _model(settings: Settings) -> Finding:
    wanted = settings.model.name
    models_dir = settings.models_dir
    try:
        source = resolve(wanted, models_dir)
        path = source.local_path(models_dir)
        if not path.is_file() and source.needs_hub:
            verdict = Verdict.WRONG if settings.model.offline else Verdict.NOTE
            mend = f"parley model pull {wanted}"
            return Finding("model", verdict, f"{source.name} is not fetched yet", mend)
        check_model_file(path)
    except ServiceError as error:
        return Finding("model", Verdict.WRONG, error.message, "parley model list")
    return Finding("model", Verdict.FINE, f"{source.name}, {amount(path.stat().st_size)}")


def _memory(settings: Settings) -> Finding:
    models_dir = settings.models_dir
    available = _meminfo("MemAvailable")
    try:
        path = resolve(settings.model.name, models_dir).local_path(models_dir)
        needed = path.stat().st_size
    except (ServiceError, OSError):
        return Finding("memory", Verdict.NOTE, f"{amount(available)} available")
    if needed > available:
        fact = f"the model alone takes {amount(needed)}, and {amount(available)} are available"
        return Finding("memory", Verdict.WRONG, fact, "parley model list, for a smaller one")
    fact = f"{amount(available)} available, the model takes {amount(needed)} besides its context"
    return Finding("memory", Verdict.FINE, fact)


def _processor(_: Settings) -> Finding:
    flags = _cpu_flags()
    cores = len(os.sched_getaffinity(0))
    if not flags:
        return Finding("processor", Verdict.NOTE, f"{cores} cores, of unknown abilities")
    known = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if name in flags]
    if "avx2" not in flags:
        fact = f"{cores} cores without AVX2: answers will be slow"
        return Finding("processor", Verdict.NOTE, fact, "move to a machine from 2013 or later")
    return Finding("processor", Verdict.FINE, f"{cores} cores with {', '.join(known)}")


def _graphics(settings: Settings) -> Finding:
    if not NVIDIA.exists():
        return Finding(
            "graphics card", Verdict.FINE, "none; everything is computed by the processor"
        )
    done = ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if done is None or done.returncode != 0:
        mend = "apt-get install nvidia-smi; after the driver's upgrade: reboot"
        return Finding("graphics card", Verdict.WRONG, "its driver does not answer", mend)
    used = "" if settings.engine.gpu_layers else ", which PARLEY_ENGINE__GPU_LAYERS=0 leaves unused"
    return Finding("graphics card", Verdict.FINE, done.stdout.strip().replace("\n", "; ") + used)


def _disk(settings: Settings) -> Finding:
    folder = settings.state_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    verdict = Verdict.FINE if free >= _FEW_BYTES else Verdict.WRONG
    mend = ""
    if free < _FEW_BYTES:
        mend = f"du -xhd1 {folder} | sort -h says what takes it; parley model remove NAME"
    return Finding("disk", verdict, f"{amount(free)} free for {folder}", mend)


def _store(settings: Settings) -> Finding:
    try:
        file = Path(store_url(settings).database or "")
        with _as_owner_of(file):
            if not file.exists():
                return Finding("database", Verdict.NOTE, "is made at the first start")
            check_store(settings)
    except ServiceError as error:
        mend = "restore a backup: docs/operations.md"
        return Finding("database", Verdict.WRONG, error.message, mend)
    return Finding("database", Verdict.FINE, "can be opened and is up to date")


@contextmanager
def _as_owner_of(file: Path) -> Iterator[None]:
    """Root opens a database as its owner does: what is made beside it must stay the owner's."""
    if os.geteuid() != 0 or not file.exists():
        yield
        return
    owner, group = file.stat().st_uid, os.getegid()
    os.setegid(file.stat().st_gid)
    os.seteuid(owner)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def _port(settings: Settings) -> Finding:
    api = settings.api
    if api.unix_socket is not None:
        return _socket(api.unix_socket)
    host = f"[{api.host}]" if ":" in api.host else api.host
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{api.port}"  # noqa: S104
    health = _health(f"{url}/health")
    if health is None:
        return _port_without_service(api.host, api.port)
    if "model_loaded" not in health:
        mend = "stop that program, or set PARLEY_API__PORT"
        return Finding("service", Verdict.WRONG, f"another program answers at {url}", mend)
    return _answering(url, health)


def _socket(path: Path) -> Finding:
    """The same where nginx is in front."""
    connection = UnixConnection(path, _SECONDS)
    try:
        connection.request("GET", "/health", headers={"Accept": "application/json"})
        facts = json.loads(connection.getresponse().read())
    except PermissionError:
        fact = f"whoever runs this may not ask at {path}"
        return Finding("service", Verdict.NOTE, fact, "sudo parley doctor")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        fact = f"does not answer at {path}: {reason}"
        return Finding("service", Verdict.WRONG, fact, "systemctl restart parley")
    finally:
        connection.close()
    return _answering(str(path), facts if isinstance(facts, dict) else {})


def _answering(place: str, health: dict[str, object]) -> Finding:
    status = str(health.get("status"))
    if status == "healthy":
        return Finding("service", Verdict.FINE, f"answers at {place}")
    notice = f": {health['notice']}" if health.get("notice") else ""
    return Finding("service", Verdict.NOTE, f"at {place} is {status}{notice}", "parley health")


def _port_without_service(host: str, port: int) -> Finding:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        fact = f"nothing of ours answers on port {port}, and it can't be used: {error.strerror}"
        return Finding("service", Verdict.WRONG, fact, "set PARLEY_API__PORT to a free one")
    return Finding("service", Verdict.NOTE, f"is not running; port {port} is free", "parley serve")


def _clock(_: Settings) -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if time.time() < _WRITTEN.stat().st_mtime - _DAY_SECONDS:
        # Then certificates are not valid yet, and no access token ever ends.
        fact = f"says {now}, before this program was installed"
        return Finding("clock", Verdict.WRONG, fact, "timedatectl set-ntp true; then date -u")
    done = ask("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if done is None or done.returncode != 0:
        return Finding("clock", Verdict.NOTE, f"says {now}")
    if done.stdout.strip() == "yes":
        return Finding("clock", Verdict.FINE, "is kept by the network")
    return Finding("clock", Verdict.NOTE, "is not kept by the network", "timedatectl set-ntp true")


def _health(url: str) -> dict[str, object] | None:
    """What `/health` says, 503 or not; None where nobody answers, {} where another program does."""
    try:
        with urlopen(url, timeout=_SECONDS) as reply:  # noqa: S310  our own address
            body = reply.read()
    except HTTPError as error:
        body = error.read()
    except (URLError, OSError):
        return None
    try:
        facts = json.loads(body)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
