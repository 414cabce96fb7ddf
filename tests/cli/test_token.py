"""`parley token`, as the operator types it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.auth.secrets import is_well_formed
from service.cli.main import parley
from service.cli.token import to_seconds
from service.domain.errors import InvalidRequest


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n == "MODEL_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(parley, ["token", *arguments])


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json").output)
    return found


def test_the_secret_is_alone_on_stdout_and_never_shown_again(tmp_path: Path) -> None:
    made = run("create", "--name", "laptop")
    secret = made.stdout.strip()
    assert (made.exit_code, is_well_formed(secret)) == (0, True)
    assert "laptop" in made.stderr
    for shown in (run("list").output, run("list", "--json").output):
        assert secret[:13] in shown
        assert secret not in shown


def test_what_was_asked_for_is_kept() -> None:
    assert listed() == []
    arguments = ("--name", "p", "--scope", "metrics", "--scope", "embed", "--expires", "90d")
    made = json.loads(run("create", *arguments, "--json").output)
    assert is_well_formed(made.pop("access_token"))
    assert listed() == [made]
    assert made["scopes"] == ["embed", "metrics"]
    assert made["revoked_at"] is None


def test_a_token_opens_chat_unless_told_otherwise() -> None:
    run("create", "--name", "laptop")
    assert listed()[0]["scopes"] == ["chat"]


def test_a_revoked_one_stays_in_the_list() -> None:
    run("create", "--name", "laptop")
    assert run("revoke", "laptop").exit_code == 0
    assert listed()[0]["revoked_at"] is not None
    assert "revoked" in run("list").output


def test_rotating_prints_another_secret() -> None:
    first = run("create", "--name", "laptop").stdout
    rotated = run("rotate", "laptop")
    assert is_well_formed(rotated.stdout.strip())
    assert rotated.stdout != first
    assert len(listed()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("create",),
        ("create", "--name", "a", "--scope", "everything"),
        ("revoke",),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [("revoke", "nobody"), ("rotate", "nobody"), ("create", "--name", "a", "--expires", "soon")],
)
def test_what_cannot_be_done_is_one_sentence(arguments: tuple[str, ...]) -> None:
    refused = run(*arguments).exception  # `main` makes exit code 2 of it
    assert isinstance(refused, InvalidRequest)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("12h", 43200), ("90d", 7776000), ("2w", 1209600)]
)
def test_lifetimes_are_read(text: str, seconds: float) -> None:
    assert to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1.5d", "90", "1y", "99999999w", "\u0663d"])
def test_other_lifetimes_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--expires"):
        to_seconds(text)
