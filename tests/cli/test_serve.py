"""`parley serve` up to the moment when the supervisor takes over, in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli.first_token import to_words
from service.cli.main import parley
from service.cli.serve import check_door, make_plan
from service.domain.errors import ConfigurationError, ModelFileError, ModelNotFound
from service.domain.model import Mode
from service.models.registry import BUILT_IN_DIR
from service.settings import ApiSettings, Settings, load_settings
from service.store.database import check_store
from service.supervisor.plan import from_json

POCKET = BUILT_IN_DIR / "pocket.gguf"


def refused(directory: Path, *arguments: str, **variables: str) -> str:
    """What a start says that is refused with exit code 2: one sentence."""
    done = subprocess.run(
        [Path(sys.executable).with_name("parley"), "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PARLEY_")},
            "PARLEY_STATE_DIR": str(directory / "state"),
            **variables,
        },
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_model_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    sentence = refused(tmp_path, MODEL_PATH=str(missing))
    assert str(missing) in sentence
    assert "does not exist" in sentence


def test_a_truncated_model_file_is_refused_before_a_start(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(POCKET.read_bytes()[:2_000_000])
    sentence = refused(tmp_path, "--model", str(cut))
    assert str(cut) in sentence
    assert "truncated" in sentence


def test_a_file_of_another_kind_is_refused_before_a_start(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("not a model\n" * 1000)
    sentence = refused(tmp_path, "--model", str(text))
    assert str(text) in sentence
    assert "not a GGUF file" in sentence


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    assert "PARLEY_ENGINE__SLOTS='many'" in refused(
        tmp_path, "--model", "pocket", PARLEY_ENGINE__SLOTS="many"
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n == "MODEL_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path))
    return tmp_path


def plan_of(**model: object) -> dict[str, object]:
    return make_plan(load_settings({"model": model}), readable=False)


def test_the_supervisor_understands_the_plan(state: Path) -> None:
    plan = from_json(json.dumps(plan_of(name="pocket", stand_in="pocket")))
    assert plan.wanted.path == POCKET
    assert plan.stand_in is None  # a model does not stand in for itself
    assert plan.wanted.mode is Mode.CHAT
    assert plan.address == "http://127.0.0.1:8000"


def test_a_model_on_the_hub_is_fetched_while_the_stand_in_answers(state: Path) -> None:
    plan = from_json(json.dumps(plan_of(name="qwen2.5-0.5b-instruct", stand_in="pocket")))
    assert plan.wanted.path is None
    assert plan.stand_in is not None
    assert plan.stand_in.path == POCKET
    assert plan.commands.download is not None
    assert plan.wanted.source.endswith(":qwen2.5-0.5b-instruct-q4_k_m.gguf")


def test_a_fetched_model_needs_no_download(state: Path) -> None:
    here = state / "models" / "acme--Tiny-GGUF" / "tiny.gguf"
    here.parent.mkdir(parents=True)
    shutil.copy(POCKET, here)
    plan = from_json(json.dumps(plan_of(name="acme/Tiny-GGUF:tiny.gguf", stand_in="pocket")))
    assert (plan.wanted.name, plan.wanted.path) == ("tiny", here)


def test_models_that_embed_and_rerank_run_beside_the_one_that_chats(state: Path) -> None:
    given = {"model": {"name": "pocket"}, "embed": {"model": str(POCKET)}}
    plan = from_json(json.dumps(make_plan(load_settings(given), readable=False)))
    assert [(model.mode, model.path) for model in plan.companions] == [(Mode.EMBED, POCKET)]


def test_offline_a_model_that_is_not_here_is_refused(state: Path) -> None:
    with pytest.raises(ConfigurationError, match="forbids fetching"):
        plan_of(name="qwen2.5-0.5b-instruct", offline=True)


def test_offline_the_stand_in_says_why_it_answers(state: Path) -> None:
    plan = plan_of(name="qwen2.5-0.5b-instruct", stand_in="pocket", offline=True)
    assert "forbids fetching it. pocket answers instead." in str(plan["notice"])
    assert from_json(json.dumps(plan)).commands.download is None


def test_a_stand_in_must_be_here(state: Path) -> None:
    with pytest.raises(ModelFileError, match="not on this machine"):
        plan_of(name="qwen2.5-0.5b-instruct", stand_in="qwen2.5-1.5b-instruct")


def test_an_unknown_model_is_refused_with_the_nearest_names(state: Path) -> None:
    with pytest.raises(ModelNotFound, match="nearest names"):
        plan_of(name="qwen2.5-0.5b")


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"PARLEY_API__HOST": "0.0.0.0"}, "0.0.0.0"),  # noqa: S104  # refused, not bound
        ({"PARLEY_API__UNIX_SOCKET": "/run/parley.sock"}, "unix:/run/parley.sock"),
    ],
)
def test_nobody_s_service_is_not_started_for_others(
    tmp_path: Path, variables: dict[str, str], place: str
) -> None:
    sentence = refused(tmp_path, "--model", "pocket", **variables)
    assert sentence.startswith(f"parley: error: {place} can be reached by others")
    command = f"`PARLEY_STATE_DIR={tmp_path / 'state'} parley token create --name laptop`"
    assert command in sentence


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  # asked about, not bound
def test_a_start_is_open_only_where_the_operator_said_so(state: Path, host: str) -> None:
    def settings(**auth: object) -> Settings:
        return load_settings({"api": {"host": host}, "auth": auth})

    others = host != "127.0.0.1"
    check_store(settings())
    assert check_door(settings(allow_anonymous=True)) is others
    made = CliRunner().invoke(parley, ["token", "create", "--name", "laptop"])
    assert made.exit_code == 0
    assert check_door(settings()) is False
    assert check_door(settings(allow_anonymous=True)) is False


def test_the_first_token_is_made_where_that_is_asked_for_and_shown_once(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = load_settings({"api": {"host": "0.0.0.0"}})  # noqa: S104  # asked about, not bound
    check_store(others)
    assert check_door(others, make_token=True) is False
    shown = capsys.readouterr().out
    (secret,) = {word for word in shown.replace("'", " ").split() if word.startswith("parley_")}
    assert f"curl http://127.0.0.1:8000/chat -H 'Authorization: Bearer {secret}'" in shown
    (listed,) = json.loads(CliRunner().invoke(parley, ["token", "list", "--json"]).stdout)
    assert (listed["name"], listed["scopes"]) == ("first", ["chat"])
    assert secret.startswith(listed["prefix"])
    assert check_door(others, make_token=True) is False
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "given",
    [
        {"api": {"host": "127.0.0.1"}},
        {"api": {"host": "0.0.0.0"}, "auth": {"allow_anonymous": True}},  # noqa: S104  # not bound
    ],
)
def test_no_token_is_made_where_none_is_needed(
    state: Path, given: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(given)
    check_store(settings)
    check_door(settings, make_token=True)
    assert capsys.readouterr().out == ""
    assert json.loads(CliRunner().invoke(parley, ["token", "list", "--json"]).stdout) == []


@pytest.mark.parametrize(
    ("api", "words"),
    [
        ({"host": "192.0.2.1", "port": 80}, "curl http://192.0.2.1:80/chat "),
        ({"host": "::"}, "curl http://[::1]:8000/chat "),
        ({"host": "2001:db8::1"}, "curl http://[2001:db8::1]:8000/chat "),
        (
            {"unix_socket": "/run/my p.sock"},
            "curl --unix-socket '/run/my p.sock' http://localhost/",
        ),
    ],
)
def test_the_line_to_try_leads_to_where_the_service_listens(
    api: dict[str, object], words: str
) -> None:
    assert words in to_words(ApiSettings.model_validate(api), "parley_x")
