"""`parley doctor` on this very machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import checkup, deployment
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


def certificate(file: Path, days: int) -> Path:
    """A certificate of ours that ends in so many days."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    secret, request = file.with_suffix(".key"), file.with_suffix(".request")
    asks = ["req", *key, "-subj", "/O=Parley on this machine/CN=x", "-keyout", str(secret)]
    signs = ["x509", "-req", "-in", str(request), "-signkey", str(secret), "-days", str(days)]
    for words in ([*asks, "-out", str(request)], [*signs, "-out", str(file)]):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return file


@pytest.mark.parametrize("days", [30, 1])
def test_a_certificate_s_days_are_counted(tmp_path: Path, days: int) -> None:
    left = days_left(certificate(tmp_path / "cert.pem", days))
    assert days - 0.1 < left < days + 0.1


@pytest.mark.parametrize(
    ("days", "verdict", "fact"),
    [
        (30, "fine", "is good for 30 more days"),
        (3, "wrong", "is good for 3 more days"),
        (-1, "wrong", "expired 1 days ago"),
    ],
)
def test_a_certificate_that_ends_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, verdict: str, fact: str
) -> None:
    monkeypatch.setattr(deployment, "CERTIFICATE", certificate(tmp_path / "cert.pem", days))
    found = verdicts()["certificate"]
    assert found[:2] == (verdict, fact)
    assert found[2] == ("" if verdict == "fine" else "make deploy HOST=… again")


def test_a_disk_with_little_room_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkup, "_FEW_BYTES", 1)
    assert verdicts()["disk"][0] == "fine"
    monkeypatch.setattr(checkup, "_FEW_BYTES", 2**80)
    verdict, fact, mend = verdicts()["disk"]
    assert (verdict, f"free for {tmp_path / 'state'}" in fact) == ("wrong", True)
    assert "parley model remove" in mend


def test_a_model_that_is_larger_than_the_memory_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        file.truncate(8 * 1024**4)  # on paper: it has no bytes
    monkeypatch.setenv("PARLEY_MODEL__NAME", str(large))
    verdict, fact, mend = verdicts()["memory"]
    assert (verdict, "the model alone takes 8" in fact) == ("wrong", True), fact
    assert mend == "parley model list, for a smaller one"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Puts a tool of the machine's first on PATH that says what it is given, and succeeds."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def test_a_clock_that_nobody_keeps_is_noted(tools: Callable[[str, str], None]) -> None:
    tools("timedatectl", "echo yes")
    assert verdicts()["clock"] == ("fine", "is kept by the network", "")
    tools("timedatectl", "echo no")
    kept = ("note", "is not kept by the network", "timedatectl set-ntp true")
    assert verdicts()["clock"] == kept


def test_a_clock_that_is_behind_the_program_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    later.touch()
    os.utime(later, (2**33, 2**33))
    monkeypatch.setattr(checkup, "_WRITTEN", later)
    verdict, fact, mend = verdicts()["clock"]
    assert (verdict, mend) == ("wrong", "timedatectl set-ntp true; then date -u")
    assert fact.endswith("before this program was installed")


def test_a_unit_that_has_failed_is_found(tools: Callable[[str, str], None]) -> None:
    state = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code"
    tools("systemctl", f"printf '{state}\\n'")
    verdict, fact, mend = verdicts()["unit"]
    assert verdict == "wrong"
    assert fact == "parley.service is failed (failed), because of: exit-code"
    assert mend.endswith("systemctl reset-failed parley; systemctl restart parley")


def test_an_nginx_that_does_not_run_or_has_no_sound_configuration_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: Callable[[str, str], None]
) -> None:
    monkeypatch.setattr(deployment, "CERTIFICATE", tmp_path / "cert.pem")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tools(
        "systemctl",
        "printf 'LoadState=loaded\\nActiveState=inactive\\nSubState=dead\\nResult=success\\n'",
    )
    tools("nginx", "exit 0")
    stopped = ("wrong", "nginx.service is inactive", "systemctl restart nginx")
    assert verdicts()["nginx"] == stopped
    tools("nginx", "echo 'nginx: [emerg] unknown directive \"x\"' >&2; exit 1")
    assert verdicts()["nginx"][:2] == ("wrong", 'nginx: [emerg] unknown directive "x"')


def test_a_port_of_nginx_that_another_program_has_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: Callable[[str, str], None]
) -> None:
    monkeypatch.setattr(deployment, "CERTIFICATE", tmp_path / "cert.pem")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tools("ss", """echo 'LISTEN 0 5 *:80 *:* users:(("nginx",pid=7,fd=3))'""")
    assert verdicts()["ports"][0] == "fine"
    tools("ss", """echo 'LISTEN 0 5 *:80 *:* users:(("apache2",pid=7,fd=3))'""")
    verdict, fact, mend = verdicts()["ports"]
    assert (verdict, fact) == ("wrong", "port 80 is taken by apache2")
    assert mend.startswith("ss -ltnp 'sport = :80' says which; stop it")


def test_no_secret_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    facts = " ".join(f"{one.fact} {one.mend}" for one in examine(Settings()))
    assert "hf_canary" not in facts
    assert {one.verdict for one in examine(Settings())} <= set(Verdict)
