"""What stands around the service on a deployed machine: unit, nginx, ports, certificate.

Elsewhere none of it is there, and nothing is said. Asked by root it knows more: only root may ask
nginx about its configuration, and see who has a port.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from service.cli.finding import Finding, Verdict, ask

CERTIFICATE = Path("/etc/parley/tls/fullchain.pem")
_RENEWALS = Path("/etc/letsencrypt/renewal")
_OURS = "Parley on this machine"  # as deploy/certificate.sh signs
_SOON_DAYS = 14
_DEPLOY = "make deploy HOST=… again"
_AS_ROOT = "sudo parley doctor"


def examine_deployment() -> Iterator[Finding]:
    """Every check for which there is something to look at."""
    for check in (_unit, _next_unit, _nginx, _ports, _certificate):
        found = check()
        if found is not None:
            yield found


def days_left(certificate: Path) -> float:
    """How long the first certificate of a PEM file is still valid.

    Raises OSError when it can't be read, ValueError when it is none.
    """
    certificate.open("rb").close()
    done = ask("openssl", "x509", "-enddate", "-noout", "-in", str(certificate))
    if done is None or done.returncode != 0:
        raise ValueError("openssl does not understand it")
    ends = ssl.cert_time_to_seconds(done.stdout.strip().partition("=")[2])
    return (ends - time.time()) / 86400


def _state_of(unit: str) -> dict[str, str]:
    """What systemd says of a unit; nothing where it knows none of that name."""
    done = ask("systemctl", "show", unit, "--property=LoadState,ActiveState,SubState,Result")
    if done is None or "LoadState=loaded" not in done.stdout:
        return {}
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def _unit() -> Finding | None:
    state = _state_of("parley.service")
    if not state:
        return None
    if state["ActiveState"] == "active":
        return Finding("unit", Verdict.FINE, "parley.service is active")
    why = "" if state["Result"] == "success" else f", because of: {state['Result']}"
    fact = f"parley.service is {state['ActiveState']} ({state['SubState']}){why}"
    mend = "systemctl reset-failed parley; systemctl restart parley"
    return Finding("unit", Verdict.WRONG, fact, f"journalctl -u parley -n 50 says why; {mend}")


def _next_unit() -> Finding | None:
    if _state_of("parley-next.service").get("ActiveState") != "active":
        return None
    fact = "parley-next.service is active: an upgrade is going on, or broke off"
    return Finding("upgrade", Verdict.NOTE, fact, _DEPLOY)


def _nginx() -> Finding | None:
    if shutil.which("nginx", path=_path()) is None or not CERTIFICATE.parent.exists():
        return None
    if os.geteuid() == 0:
        done = ask("nginx", "-t", "-q")
        if done is not None and done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "emerg" in line]
            return Finding("nginx", Verdict.WRONG, (lines or ["refuses it"])[0], _DEPLOY)
    state = _state_of("nginx.service").get("ActiveState", "unknown")
    if state != "active":
        return Finding(
            "nginx", Verdict.WRONG, f"nginx.service is {state}", "systemctl restart nginx"
        )
    return Finding("nginx", Verdict.FINE, "runs, and its configuration is sound")


def _ports() -> Finding | None:
    """Who listens where nginx ought to; seen by root only."""
    if os.geteuid() != 0 or not CERTIFICATE.parent.exists():
        return None
    for port in (80, 443):
        done = ask("ss", "-Hltnp", f"sport = :{port}")
        holders = set(re.findall(r'users:\(\("([^"]+)"', done.stdout)) if done else set()
        if others := holders - {"nginx"}:
            fact = f"port {port} is taken by {', '.join(sorted(others))}"
            mend = f"ss -ltnp 'sport = :{port}' says which; stop it, then systemctl restart nginx"
            return Finding("ports", Verdict.WRONG, fact, mend)
    return Finding("ports", Verdict.FINE, "80 and 443 are nginx's, or free")


def _certificate() -> Finding | None:
    try:
        days = days_left(CERTIFICATE)
    except FileNotFoundError:
        return None
    except PermissionError:
        return Finding("certificate", Verdict.NOTE, "only root may look at it", _AS_ROOT)
    except (OSError, ValueError) as error:
        fact = f"{CERTIFICATE} can't be used: {error}"
        return Finding("certificate", Verdict.WRONG, fact, f"rm -r {CERTIFICATE.parent}; {_DEPLOY}")
    fact = f"is good for {days:.0f} more days" if days > 0 else f"expired {-days:.0f} days ago"
    if days > _SOON_DAYS:
        return Finding("certificate", Verdict.FINE, fact)
    return Finding("certificate", Verdict.WRONG, fact, _renewal())


def _renewal() -> str:
    """The command that gets another certificate, by where this one is from."""
    done = ask("openssl", "x509", "-issuer", "-noout", "-in", str(CERTIFICATE))
    if done is not None and _OURS in done.stdout:
        return _DEPLOY
    if _RENEWALS.exists():
        return "certbot renew --force-renewal"
    return f"put a new one into {CERTIFICATE.parent}, then systemctl reload nginx"


def _path() -> str:
    return os.pathsep.join([*os.get_exec_path(), "/usr/sbin"])
