"""`parley conversation` and `parley backup`, as the operator types them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import parley
from service.domain.chat import Message, Role
from service.domain.conversation import AnswerState
from service.domain.errors import ConfigurationError, ConversationNotFound, InvalidRequest
from service.settings import load_settings
from service.store.database import open_store


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n == "MODEL_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(parley, arguments)


def say(text: str, reply: str, name: str = "talk") -> None:
    async def keep() -> None:
        store = await open_store(load_settings())
        key = await store.add_turn("anonymous", name, text)
        await store.write_answer(key, Message(Role.ASSISTANT, reply), AnswerState.COMPLETE)
        await store.aclose()

    asyncio.run(keep())


def test_conversations_are_listed_and_searched() -> None:
    say("How is bread baked?", "With flour.")
    assert "talk     1  How is bread baked?" in run("conversation", "list").output
    assert json.loads(run("conversation", "list", "--json").output)[0]["id"] == "talk"
    found = run("conversation", "search", "flour").output
    assert found == "talk  turn 1  assistant: With flour.\n"
    assert run("conversation", "list", "--principal", "tok_x").output == ""


def test_an_export_comes_back_under_a_new_id(tmp_path: Path) -> None:
    say("Hi", "Ho \U0001f642")
    exported = run("conversation", "export", "talk").output
    file = tmp_path / "talk.json"
    file.write_text(exported)
    name = run("conversation", "import", str(file)).output.strip()
    assert name.startswith("conv_")
    again = json.loads(run("conversation", "export", name).output)
    assert again["messages"] == json.loads(exported)["messages"]
    markdown = run("conversation", "export", "talk", "--format", "markdown").output
    assert markdown.startswith("# Hi\n\n## You\n\nHi\n")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}'])
def test_what_is_no_export_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "talk.json"
    file.write_text(content)
    refused = run("conversation", "import", str(file)).exception
    assert isinstance(refused, InvalidRequest)
    assert "talk.json is not JSON" in refused.message or "no conversation" in refused.message


def test_a_conversation_is_renamed_copied_up_to_a_turn_and_forgotten() -> None:
    say("How is bread baked?", "With flour.")
    say("And cake?", "With eggs.")
    assert run("conversation", "rename", "talk", "Baking").exit_code == 0
    assert "talk     2  Baking" in run("conversation", "list").output
    copy = run("conversation", "fork", "talk", "--last-turn", "1").output.strip()
    assert "flour" in run("conversation", "export", copy).output
    assert "eggs" not in run("conversation", "export", copy).output
    assert run("conversation", "delete", "talk").exit_code == 0
    assert run("conversation", "search", "eggs").output == ""
    assert [c["id"] for c in json.loads(run("conversation", "list", "--json").output)] == [copy]


@pytest.mark.parametrize("words", ["export X", "rename X title", "fork X", "delete X"])
def test_an_unknown_conversation_is_refused(words: str) -> None:
    refused = run("conversation", *words.split()).exception
    assert isinstance(refused, ConversationNotFound)
    assert "`X`" in refused.message


def test_anothers_conversation_is_as_unknown() -> None:
    say("secret", "yes")
    refused = run("conversation", "delete", "talk", "--principal", "tok_x").exception
    assert isinstance(refused, ConversationNotFound)
    assert "secret" in run("conversation", "list").output


def test_erasing_asks_first() -> None:
    say("secret", "yes")
    assert run("conversation", "erase").exit_code == 1
    assert "secret" in run("conversation", "list").output
    assert run("conversation", "erase", "--yes").output == "1 conversations are forgotten.\n"
    assert run("conversation", "list").output == ""


def test_a_backup_is_whole_and_private(tmp_path: Path) -> None:
    say("keep", "this")
    target = tmp_path / "copy.sqlite"
    assert run("backup", str(target)).exit_code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT content FROM messages ORDER BY key").fetchall() == [
            ("keep",),
            ("this",),
        ]
    assert list(tmp_path.glob("*.part")) == []


def test_a_folder_keeps_the_last_copies(tmp_path: Path) -> None:
    say("keep", "this")
    folder = tmp_path / "copies"
    folder.mkdir()
    for day in range(1, 6):
        (folder / f"parley-2020-01-0{day}.sqlite").touch()
    (folder / "notes.txt").touch()
    assert run("backup", str(folder), "--keep", "3").exit_code == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names[:3] == ["notes.txt", "parley-2020-01-04.sqlite", "parley-2020-01-05.sqlite"]
    assert len(names) == 4


def test_a_backup_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    say("keep", "this")
    refused = run("backup", str(tmp_path / "no" / "where.sqlite")).exception
    assert isinstance(refused, ConfigurationError)
    assert "where.sqlite could not be written" in refused.message
    itself = run("backup", str(tmp_path / "state" / "parley.sqlite")).exception
    assert isinstance(itself, ConfigurationError)
    assert "is the database itself" in itself.message


def test_there_is_nothing_to_back_up_before_the_first_start(tmp_path: Path) -> None:
    refused = run("backup", str(tmp_path / "copy.sqlite")).exception
    assert isinstance(refused, ConfigurationError)
    assert "to back up yet" in refused.message
