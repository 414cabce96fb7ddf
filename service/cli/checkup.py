"""What can be wrong around the service, looked at one by one; nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from service.domain.amounts import amount
from service.domain.errors import ServiceError
from service.models.gguf import check_model_file
from service.models.registry import resolve
from service.settings import Settings
from service.store.database import check_store, store_url

CERTIFICATE = Path("/etc/parley/tls/fullchain.pem")
NVIDIA = Path("/proc/driver/nvidia/version")
_FEW_BYTES = 2 * 1024**3
_SOON_DAYS = 14
_SECONDS = 10.0


class Verdict(StrEnum):
    FINE = "fine"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """`mend` is the command, or the setting, that puts it right."""

    about: str
    verdict: Verdict
    fact: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn. None of them tells a secret."""
    for check in (_model, _memory, _processor, _graphics, _disk, _store, _port, _clock):
        yield check(settings)
    for optional in (_unit, _nginx, _certificate):
        found = optional(settings)
        if found is not None:
            yield found


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
        return Finding("processor", Verdict.NOTE, fact, "a machine from 2013 or later")
    return Finding("processor", Verdict.FINE, f"{cores} cores with {', '.join(known)}")


def _graphics(settings: Settings) -> Finding:
    if not NVIDIA.exists():
        return Finding(
            "graphics card", Verdict.FINE, "none; everything is computed by the processor"
        )
    done = _run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if done is None or done.returncode != 0:
        mend = "install the driver's tools, or restart after its upgrade"
        return Finding("graphics card", Verdict.WRONG, "its driver does not answer", mend)
    used = "" if settings.engine.gpu_layers else ", which PARLEY_ENGINE__GPU_LAYERS=0 leaves unused"
    return Finding("graphics card", Verdict.FINE, done.stdout.strip().replace("\n", "; ") + used)


def _disk(settings: Settings) -> Finding:
    folder = settings.state_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    verdict = Verdict.FINE if free >= _FEW_BYTES else Verdict.WRONG
    mend = "" if free >= _FEW_BYTES else f"make room, or set PARLEY_STATE_DIR (now {folder})"
    return Finding("disk", verdict, f"{amount(free)} free for {folder}", mend)


def _store(settings: Settings) -> Finding:
    try:
        if not Path(store_url(settings).database or "").exists():
            return Finding("database", Verdict.NOTE, "is made at the first start")
        check_store(settings)
    except ServiceError as error:
        return Finding("database", Verdict.WRONG, error.message, "restore a backup")
    return Finding("database", Verdict.FINE, "can be opened and is up to date")


def _port(settings: Settings) -> Finding:
    api = settings.api
    if api.unix_socket is not None:
        there = "is there" if api.unix_socket.exists() else "is not there; is the service running?"
        return Finding("service", Verdict.NOTE, f"the socket {api.unix_socket} {there}")
    url = f"http://{'127.0.0.1' if api.host in ('0.0.0.0', '::') else api.host}:{api.port}"  # noqa: S104
    health = _health(f"{url}/health")
    if health is None:
        return _port_without_service(api.host, api.port)
    if "model_loaded" not in health:
        mend = "stop that program, or set PARLEY_API__PORT"
        return Finding("service", Verdict.WRONG, f"another program answers at {url}", mend)
    status = str(health.get("status"))
    if status == "healthy":
        return Finding("service", Verdict.FINE, f"answers at {url}")
    return Finding("service", Verdict.NOTE, f"at {url} is {status}", "parley health --wait 60")


def _port_without_service(host: str, port: int) -> Finding:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        fact = f"nothing of ours answers on port {port}, and it can't be used: {error.strerror}"
        return Finding("service", Verdict.WRONG, fact, "set PARLEY_API__PORT to a free one")
    return Finding("service", Verdict.NOTE, f"is not running; port {port} is free", "parley serve")


def _clock(_: Settings) -> Finding:
    done = _run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if done is None or done.returncode != 0:
        return Finding(
            "clock", Verdict.NOTE, f"says {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
        )
    if done.stdout.strip() == "yes":
        return Finding("clock", Verdict.FINE, "is kept by the network")
    return Finding("clock", Verdict.NOTE, "is not kept by the network", "timedatectl set-ntp true")


def _unit(_: Settings) -> Finding | None:
    done = _run("systemctl", "show", "parley", "--property=LoadState,ActiveState,Result")
    if done is None or "LoadState=loaded" not in done.stdout:
        return None
    state = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if state.get("ActiveState") == "active":
        return Finding("unit", Verdict.FINE, "parley.service is active")
    fact = f"parley.service is {state.get('ActiveState')} ({state.get('Result')})"
    return Finding("unit", Verdict.WRONG, fact, "journalctl -u parley -n 50")


def _nginx(_: Settings) -> Finding | None:
    if shutil.which("nginx") is None or not CERTIFICATE.parent.exists():
        return None
    done = _run("nginx", "-t")
    if done is None:
        return None
    if done.returncode == 0:
        return Finding("nginx", Verdict.FINE, "its configuration is sound")
    lines = [line for line in done.stderr.splitlines() if "emerg" in line] or ["refuses it"]
    return Finding("nginx", Verdict.WRONG, lines[0], "nginx -t")


def _certificate(_: Settings) -> Finding | None:
    try:
        days = days_left(CERTIFICATE)
    except FileNotFoundError:
        return None
    except (OSError, ssl.SSLError, ValueError) as error:
        fact = f"{CERTIFICATE} can't be read: {error}"
        return Finding("certificate", Verdict.WRONG, fact, "make deploy HOST=…")
    fact = f"is good for {days:.0f} more days" if days > 0 else f"expired {-days:.0f} days ago"
    if days > _SOON_DAYS:
        return Finding("certificate", Verdict.FINE, fact)
    return Finding("certificate", Verdict.WRONG, fact, "certbot renew, or make deploy HOST=… again")


def days_left(certificate: Path) -> float:
    """How long the first certificate of a PEM file is still valid."""
    done = _run("openssl", "x509", "-enddate", "-noout", "-in", str(certificate))
    certificate.open("rb").close()
    if done is None or done.returncode != 0:
        raise ValueError("openssl does not understand it")
    ends = ssl.cert_time_to_seconds(done.stdout.strip().partition("=")[2])
    return (ends - time.time()) / 86400


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


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Its result; None where there is no such program, or it takes too long."""
    try:
        return subprocess.run(  # noqa: S603  commands of this module, no shell
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


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
