"""`parley doctor` on this very machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.checkup import examine
from service.cli.deployment import days_left
from service.cli.finding import Verdict
from service.cli.main import parley
from service.older_names import OLDER_NAMES
from service.settings import Settings
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n in OLDER_NAMES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PARLEY_API__PORT", str(free_port()))


@pytest.fixture
def answering() -> Iterator[tuple[int, dict[str, object]]]:
    """A program on a port, and what it says of its health."""
    facts: dict[str, object] = {}

    class Program(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if facts.get("model_loaded", True) else 503)
            self.end_headers()
            self.wfile.write(json.dumps(facts).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Program)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, facts
    server.shutdown()
    thread.join()
    server.server_close()


def verdicts(**environment: str) -> dict[str, tuple[str, str, str]]:
    for name, value in environment.items():
        os.environ[name] = value
    found = json.loads(CliRunner().invoke(parley, ["doctor", "--json"]).stdout)
    return {one["about"]: (one["verdict"], one["fact"], one["mend"]) for one in found}


def test_a_fresh_machine_lacks_nothing_but_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARLEY_MODEL__NAME", "pocket")
    found = verdicts()
    assert found["model"][0] == "fine"
    assert found["service"] == ("note", found["service"][1], "parley serve")
    assert found["database"][0] == "note"
    assert not (tmp_path / "state").exists()  # it changes nothing
    page = CliRunner().invoke(parley, ["doctor"])
    assert page.exit_code == 0
    assert "→ parley serve" in page.stdout


def test_what_is_wrong_is_named_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_MODEL__NAME", "/nowhere/model.gguf")
    page = CliRunner().invoke(parley, ["doctor"])
    assert page.exit_code == 1
    assert "BAD   model" in page.stdout
    assert "/nowhere/model.gguf" in page.stdout


def test_a_port_that_somebody_else_has_is_found(
    monkeypatch: pytest.MonkeyPatch, answering: tuple[int, dict[str, object]]
) -> None:
    port, facts = answering
    monkeypatch.setenv("PARLEY_API__PORT", str(port))
    assert "another program answers" in verdicts()["service"][1]
    facts.update(status="healthy", model_loaded=True)
    assert verdicts()["service"][0] == "fine"
    facts.update(status="loading", model_loaded=False)
    assert verdicts()["service"] == (
        "note",
        f"at http://127.0.0.1:{port} is loading",
        "parley health",
    )


def test_a_port_that_is_taken_and_silent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen(0)
        monkeypatch.setenv("PARLEY_API__PORT", str(listener.getsockname()[1]))
        monkeypatch.setattr("service.cli.checkup._SECONDS", 0.2)
        assert verdicts()["service"][0] == "wrong"


def test_a_database_that_is_broken_is_found(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "parley.sqlite").write_bytes(b"no database at all" * 100)
    assert verdicts()["database"][0] == "wrong"


@pytest.mark.parametrize("days", [30, 1])
def test_a_certificate_s_days_are_counted(tmp_path: Path, days: int) -> None:
    file = tmp_path / "cert.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(file)]
    about = ["-subj", "/CN=x", "-days", str(days)]
    subprocess.run(
        ["openssl", "req", "-x509", *key, *files, *about], check=True, capture_output=True
    )
    assert days - 0.1 < days_left(file) < days + 0.1


def test_no_secret_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    facts = " ".join(f"{one.fact} {one.mend}" for one in examine(Settings()))
    assert "hf_canary" not in facts
    assert {one.verdict for one in examine(Settings())} <= set(Verdict)
