"""The commands beside `serve`: help, settings, health."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service import __version__
from service.cli.config import known_settings
from service.cli.main import parley
from service.settings import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n == "MODEL_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(parley, arguments)


def test_the_version_is_printed() -> None:
    assert run("--version").output == f"parley {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("serve",),
        ("health",),
        ("calibrate",),
        ("config",),
        *(("config", v) for v in ("show", "check", "example")),
        ("token",),
        *(("token", v) for v in ("create", "list", "revoke", "rotate")),
    ],
    ids=" ".join,
)
def test_help_shows_an_example_before_the_options(command: tuple[str, ...]) -> None:
    result = run(*command, "-h")
    assert result.exit_code == 0
    assert 0 < result.output.index("Example") < result.output.index("Options:")


@pytest.mark.parametrize("command", [(), ("token",), ("model",), ("conversation",), ("config",)])
def test_a_list_of_commands_has_whole_sentences(command: tuple[str, ...]) -> None:
    listed = run(*command, "-h").output.partition("Commands:")[2].partition("\n\n")[0]
    assert listed
    assert "..." not in listed


def test_a_wrong_option_is_exit_code_2() -> None:
    assert run("serve", "--port", "99999").exit_code == 2
    assert run("brew").exit_code == 2


def test_the_settings_are_shown_as_they_are() -> None:
    result = CliRunner(env={"PARLEY_API__PORT": "9000"}).invoke(parley, ["config", "show"])
    assert "PARLEY_API__PORT=9000\n" in result.output
    assert "# PARLEY_STORE__URL is unset\n" in result.output


def test_the_settings_are_shown_as_json_with_secrets_masked() -> None:
    url = "postgresql://parley:hunter2@db/parley"
    result = CliRunner(env={"PARLEY_STORE__URL": url}).invoke(parley, ["config", "show", "--json"])
    table = json.loads(result.output)
    assert table["PARLEY_STORE__URL"] == "postgresql://parley:***@db/parley"
    assert set(table) == {setting.variable for setting in known_settings()}


def test_the_example_names_every_setting_and_changes_nothing_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = run("config", "example").output
    before = load_settings()
    pairs = re.findall(r"^#(PARLEY_\w+)=(.*)$", text, re.MULTILINE)
    assert {name for name, _ in pairs} == {setting.variable for setting in known_settings()}
    for name, value in pairs:
        if value and name != "PARLEY_STATE_DIR":
            monkeypatch.setenv(name, value.strip('"'))
    assert load_settings() == before


def test_every_setting_in_the_example_is_described() -> None:
    blocks = run("config", "example").output.split("\n\n")[1:]
    assert all(block.startswith("# ") for block in blocks)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(len(line) <= 100 for line in lines if line.startswith("# "))


def test_a_check_says_which_model_would_be_served() -> None:
    result = CliRunner(env={"PARLEY_MODEL__NAME": "pocket"}).invoke(parley, ["config", "check"])
    assert result.exit_code == 0
    assert "pocket.gguf" in result.output


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, facts = self.server.says  # type: ignore[attr-defined]
            self.send_response(status if self.path == "/chat/health" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(facts).encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Health) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "facts", "code", "words"),
    [
        (200, {"status": "healthy", "model": "pocket"}, 0, "is healthy, model pocket"),
        (503, {"status": "loading", "progress": 0.43}, 1, "is loading, 43%"),
        (502, {}, 1, "is HTTP 502"),
    ],
)
def test_health_is_an_exit_code(
    server: HTTPServer, status: int, facts: dict[str, object], code: int, words: str
) -> None:
    server.says = (status, facts)  # type: ignore[attr-defined]
    result = run("health", "--url", f"http://127.0.0.1:{server.server_address[1]}/chat")
    assert (result.exit_code, words in result.output) == (code, True), result.output


def test_nobody_there_is_exit_code_1() -> None:
    result = run("health", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "does not answer" in result.output
