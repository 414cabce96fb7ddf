"""Secrets in files: where they are found, what is refused, and where they never show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.main import parley
from service.domain.errors import ConfigurationError
from service.secret_files import MAX_BYTES
from service.settings import child_environment, load_settings

CANARY = "hf_canary7f3a"
VARIABLE = "PARLEY_MODEL__HUB_TOKEN"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.upper().startswith("PARLEY_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "hub-token"
    path.touch(mode=0o600)
    path.write_text(f"{CANARY}\n")
    return path


def test_a_secret_is_what_a_file_says_without_its_last_newline(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret_file))
    settings = load_settings()
    assert settings.model.hub_token == CANARY
    assert CANARY not in repr(settings)


def test_a_secret_is_a_systemd_credential_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credential = tmp_path / VARIABLE
    credential.write_text(CANARY)
    credential.chmod(0o440)  # what systemd leaves where it grants access by a list
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_settings().model.hub_token == CANARY
    child = child_environment(load_settings())
    assert VARIABLE not in child
    assert f"{VARIABLE}_FILE" not in child
    assert child["CREDENTIALS_DIRECTORY"] == str(tmp_path)


def test_every_process_reads_the_file_itself_and_none_has_the_secret_in_its_environment(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    monkeypatch.chdir(secret_file.parent)
    monkeypatch.setenv(f"{VARIABLE}_FILE", secret_file.name)
    child = child_environment(load_settings())
    assert CANARY not in repr(child)
    assert child[f"{VARIABLE}_FILE"] == str(secret_file)
    for name, text in child.items():
        monkeypatch.setenv(name, text)
    monkeypatch.chdir("/")
    assert load_settings().model.hub_token == CANARY


def test_the_store_s_url_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.touch(mode=0o640)
    path.write_text("sqlite:////srv/chat.sqlite\r\n")
    path.chmod(0o640)
    monkeypatch.setenv("PARLEY_STORE__URL_FILE", str(path))
    assert load_settings().store.url == "sqlite:////srv/chat.sqlite"


@pytest.mark.parametrize("way", ["file", "credential"])
def test_a_secret_that_is_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path, way: str
) -> None:
    monkeypatch.setenv(VARIABLE, "hf_other")
    if way == "file":
        monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret_file))
        sentence = f"{VARIABLE} and {VARIABLE}_FILE are both given; keep one."
    else:
        secret_file.rename(secret_file.with_name(VARIABLE))
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_file.parent))
        sentence = f"{VARIABLE} and the systemd credential {VARIABLE} are both given; keep one."
    assert refusal() == sentence


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert CANARY not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (CANARY, 0o644, "is open to others (0644); `chmod 600 "),
        (CANARY, 0o620, "is open to others (0620); `chmod 600 "),
        ("", 0o600, "is empty."),
        (" \n\n", 0o600, "is empty."),
        (f"{CANARY}\nX-Admin: yes\n", 0o600, "has more than one line, or control characters."),
        (CANARY * MAX_BYTES, 0o600, f"has more than the {MAX_BYTES} bytes that are read."),
    ],
)
def test_a_file_that_can_t_be_meant_so_stops_the_start_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path, content: str, mode: int, reason: str
) -> None:
    secret_file.write_text(content)
    secret_file.chmod(mode)
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret_file))
    message = refusal()
    assert f"The file {secret_file} with {VARIABLE} {reason}" in message
    assert "\n" not in message


def test_bytes_that_are_no_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path
) -> None:
    secret_file.write_bytes(b"\xff\xfe")
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret_file))
    assert refusal().endswith("is not text in UTF-8.")


def test_what_is_not_there_or_not_a_file_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(tmp_path / "nowhere"))
    assert "can't be read: No such file" in refusal()
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(tmp_path))
    assert refusal().endswith(("is not a file.", "can't be read: Is a directory."))
    os.mkfifo(tmp_path / "pipe", 0o600)
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(tmp_path / "pipe"))
    assert refusal().endswith("is not a file.")


def test_only_secrets_lie_in_files(monkeypatch: pytest.MonkeyPatch, secret_file: Path) -> None:
    monkeypatch.setenv("PARLEY_API__PORT_FILE", str(secret_file))
    assert refusal().startswith("PARLEY_API__PORT_FILE is not a setting")


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_nobody_is_shown_a_secret(
    monkeypatch: pytest.MonkeyPatch, secret_file: Path, as_json: list[str]
) -> None:
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(secret_file))
    for url in (
        f"postgresql://chat:{CANARY}@db/chat",
        f"postgresql://chat:a@{CANARY}@db/chat",
        f"postgresql://db/chat?user=chat&password={CANARY}",
        CANARY,
    ):
        monkeypatch.setenv("PARLEY_STORE__URL", url)
        done = CliRunner().invoke(parley, ["config", "show", *as_json])
        assert done.exit_code == 0
        assert CANARY not in done.output
        assert "PARLEY_MODEL__HUB_TOKEN" in done.output
        assert "***" in done.output
