"""A model hub on the loopback: the part of its protocol that a download asks for."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PATH = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class LoopbackHub:
    """One file of one repository. The public fields may be changed while it serves."""

    content: bytes
    repo: str = "acme/Tiny-GGUF"
    file: str = "tiny.gguf"
    etag: str = ""
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    hold_at: int | None = None  # stop sending there until `release` is set
    refuse: tuple[int, str] | None = None  # status and X-Error-Code for everything
    token: str | None = None  # the only access token accepted
    knows_ranges: bool = True
    looks_like_hub: bool = True
    port: int = 0
    ranges: list[str | None] = field(default_factory=list)  # Range of every GET so far
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        if self._refused():
            return
        self.send_response(200)
        if self.hub.looks_like_hub:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"0f1e2d"')
            self.send_header("X-Linked-Etag", f'"{self.hub.etag or self.hub.sha256}"')
            self.send_header("X-Linked-Size", str(len(self.hub.content)))
        self.send_header("Content-Length", str(len(self.hub.content)))
        self.end_headers()

    def do_GET(self) -> None:
        if self._refused():
            return
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        size = len(self.hub.content)
        if start >= size:
            self._answer(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        if asked and self.hub.knows_ranges:
            span = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
            self._answer(206, {**span, "Content-Length": str(size - start)})
        else:
            start = 0
            self._answer(200, {"Content-Length": str(size)})
        with suppress(ConnectionError):  # the tests end some clients in the middle
            self._send(self.hub.content[start:])

    def _send(self, body: bytes) -> None:
        if self.hub.cuts:
            self.wfile.write(body[: self.hub.cuts.pop(0)])
            self.close_connection = True
            return
        held = self.hub.hold_at
        if held is not None:
            self.wfile.write(body[:held])
            self.wfile.flush()
            self.hub.release.wait(60)
            body = body[held:]
        self.wfile.write(body)

    def _refused(self) -> bool:
        hub, found = self.hub, _PATH.fullmatch(self.path)
        given = self.headers.get("Authorization")
        if hub.refuse is not None:
            status, code = hub.refuse
        elif hub.token is not None and given != f"Bearer {hub.token}":
            status, code = 401, "GatedRepo"
        elif found is None or (found["repo"], found["file"]) != (hub.repo, hub.file):
            status, code = 404, "EntryNotFound"
        else:
            return False
        self._answer(status, {"X-Error-Code": code, "Content-Length": "0"})
        return True

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """Serve `hub` on a free port until the block ends."""

    class Answers(_Answers):
        pass

    Answers.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            hub.release.set()
            server.shutdown()
            thread.join()
