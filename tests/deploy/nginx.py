"""The proxy's real configuration on loopback, in front of a service that repeats what it got."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port
from tests.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
FRAME = """
{user}
worker_processes 1;
pid {root}/nginx.pid;
error_log {root}/error.log;
include {root}/main.conf;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    include {root}/http.conf;
    include {root}/errors-http.conf;
    include {root}/site.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running nginx. `front` is the link to the service's socket."""

    root: Path
    tls_port: int
    plain_port: int
    front: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def log(self) -> list[dict[str, object]]:
        """The lines that are there whole."""
        lines = (self.root / "parley.log").read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]


class Echo(http.server.BaseHTTPRequestHandler):
    """Tells which headers arrived; /v1/stream sends two pieces, the second when it is told to."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()
    name = "one"

    def do_GET(self) -> None:
        if self.path.startswith("/v1/stream"):
            self._stream()
            return
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        body = json.dumps({"name": self.name, **dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("X-Request-Id", self.headers["X-Request-Id"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        self.go_on.wait(20)
        self.wfile.write(b"data: second\n\n")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """HTTP on a unix socket."""

    daemon_threads = True


@contextmanager
def service_at(path: Path, name: str = "one") -> Iterator[type[Echo]]:
    """A service on the socket `path`."""
    kind: type[Echo] = type("NamedEcho", (Echo,), {"name": name, "go_on": threading.Event()})
    with UnixServer(str(path), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield kind
        finally:
            kind.go_on.set()
            server.shutdown()


def render(root: Path) -> Proxy:
    """The configuration below `root`, as the installer puts it, on free ports of loopback."""
    proxy = Proxy(root, free_port(), free_port(), root / "front.sock")
    (root / "snippets").mkdir()
    (root / "acme").mkdir()
    replaced = {
        "/etc/parley/tls/": f"{root}/",
        "/etc/parley/": f"{root}/",
        "/var/log/nginx/": f"{root}/",
        "/var/lib/parley-acme": f"{root}/acme",
        "/run/parley-front.sock": str(proxy.front),
        "include snippets/": f"include {root}/snippets/",
        "listen 80 ": f"listen 127.0.0.1:{proxy.plain_port} ",
        "listen 443 ": f"listen 127.0.0.1:{proxy.tls_port} ",
    }
    for file in (DEPLOY / "nginx").iterdir():
        text = rendered() if file.name == "site.conf" else file.read_text()
        for old, new in replaced.items():
            text = text.replace(old, new)
        name = f"snippets/parley-{file.name}" if file.suffix == ".inc" else file.name
        (root / name).write_text(text)
    user = "user root;" if os.getuid() == 0 else ""
    (root / "nginx.conf").write_text(FRAME.format(root=root, user=user))
    make_certificate(root)
    return proxy


def rendered() -> str:
    """The site's configuration for the nginx here, as the installer renders it."""
    done = subprocess.run(
        [str(DEPLOY / "nginx" / "render.sh"), "_", "", program()],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def make_certificate(root: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-keyout", str(root / "privkey.pem"), "-out", str(root / "fullchain.pem")),
        ],
        check=True,
        capture_output=True,
    )


def program() -> str:
    """nginx: PARLEY_TEST_NGINX names another one than the machine's; empty where there is none."""
    named = os.environ.get("PARLEY_TEST_NGINX", "nginx")
    return shutil.which(named, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or ""


def command(proxy: Proxy, *words: str) -> list[str]:
    return [program(), "-p", str(proxy.root), "-c", str(proxy.root / "nginx.conf"), *words]


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    """nginx, ready to be asked."""
    with subprocess.Popen(
        command(proxy, "-g", "daemon off;"), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: listens(proxy.tls_port) or process.poll() is not None)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield proxy
        finally:
            process.terminate()
            process.wait(60)


def listens(port: int) -> bool:
    """Whether somebody does, on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
