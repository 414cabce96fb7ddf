"""`parley health`: whether the service answers, as an exit code."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from service.domain.errors import ConfigurationError
from service.settings import Settings, load_settings


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@click.command()
@click.option("--url", metavar="URL", help="Where it is served.  [default: as configured here]")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=5.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer.")
def health(url: str | None, timeout: float, as_json: bool) -> None:
    """Ask a running service whether it answers: exit code 0 if so, 1 if not.

    \b
    Example:
      parley health --url http://127.0.0.1:8000 && echo it answers
    """
    connection, place, base = _connect(url, timeout)
    try:
        connection.request("GET", base + "/health", headers={"Accept": "application/json"})
        reply = connection.getresponse()
        body = _facts(reply.read())
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        click.echo(f"{place} does not answer: {reason}.", err=True)
        sys.exit(1)
    finally:
        connection.close()
    click.echo(json.dumps(body, indent=1) if as_json else _sentence(place, reply.status, body))
    sys.exit(0 if reply.status == 200 else 1)


def _connect(url: str | None, timeout: float) -> tuple[http.client.HTTPConnection, str, str]:
    """A connection, what to call its far end, and the path in front of ours."""
    if url is None:
        settings = load_settings()
        if settings.api.unix_socket is not None:
            path = settings.api.unix_socket
            return UnixConnection(path, timeout), str(path), ""
        url = _configured_url(settings)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"--url {url} is not a URL: {error}.") from error
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ConfigurationError(f"--url {url} is not accepted; write http://HOST:PORT.")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, port, timeout=timeout), url, parts.path.rstrip("/")


def _configured_url(settings: Settings) -> str:
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    host = everywhere.get(settings.api.host, settings.api.host)
    return (
        f"http://[{host}]:{settings.api.port}"
        if ":" in host
        else f"http://{host}:{settings.api.port}"
    )


def _facts(body: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(body)
    except ValueError:
        facts = None
    return facts if isinstance(facts, dict) else {}


def _sentence(place: str, status: int, body: dict[str, Any]) -> str:
    word = body.get("status", f"HTTP {status}")
    model = f", model {body['model']}" if body.get("model") else ""
    progress = body.get("progress")
    far = f", {progress:.0%}" if isinstance(progress, float) and status != 200 else ""
    notice = f" ({body['notice']})" if body.get("notice") else ""
    return f"{place} is {word}{model}{far}{notice}"
