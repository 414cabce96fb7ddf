"""`python golden.py SOCKET`: whether a release that has just started answers as it should.

Asks over its unix socket; exit code 1 and one sentence where an answer is not good. Standard
library only. Pocket's answers are known; any other model has to say something in time.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import sys

TIMEOUT_SECONDS = 120.0
POCKET = (
    ("What is the capital of France?", r"Paris"),
    ("Hello!", r"help"),
    ("Who are you?", r"Pocket"),
)
ANY = (("Say hello.", r"\S"),)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def ask(path: str, method: str, route: str, body: object = None) -> dict[str, object]:
    """The JSON of a 200 reply; OSError with a sentence for anything else."""
    connection = UnixConnection(path)
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("PARLEY_GOLDEN_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, route, json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"{route} was not answered ({error!r})") from error
    finally:
        connection.close()
    if reply.status != 200:
        raise OSError(f"{route} was answered with {reply.status}: {text[:200]}")
    content = json.loads(text)
    return content if isinstance(content, dict) else {}


def fault(path: str) -> str | None:
    """Why the release is not good, in one sentence; None when it is."""
    model = ask(path, "GET", "/health").get("model")
    for prompt, pattern in POCKET if model == "pocket" else ANY:
        body = {"message": prompt, "temperature": 0, "max_tokens": 48}
        answer = str(ask(path, "POST", "/chat", body).get("response", ""))
        if not re.search(pattern, answer):
            return f"{model} was asked {prompt!r} and said {answer[:200]!r}, without {pattern!r}"
    return None


def main(arguments: list[str]) -> int:
    try:
        found = fault(arguments[0])
    except (OSError, ValueError) as error:
        found = str(error)
    if found:
        print(f"parley: {found}.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
