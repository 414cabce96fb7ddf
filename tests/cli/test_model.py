"""`parley model`, with a hub on the loopback and a real supervisor over small processes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli.main import parley
from service.domain.errors import (
    ConfigurationError,
    Conflict,
    DownloadFailed,
    EngineUnavailable,
    InvalidRequest,
    ModelFileError,
    ModelNotFound,
    ServiceError,
    SwitchFailed,
)
from service.models.additions import read_additions
from service.models.registry import BUILT_IN_DIR
from tests.e2e.parley import PARLEY
from tests.models.hub import LoopbackHub, serving
from tests.supervisor.service import conduct, supervised

POCKET = BUILT_IN_DIR / "pocket.gguf"
TINY = "acme/Tiny-GGUF:tiny.gguf"


@pytest.fixture(autouse=True)
def models_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [n for n in os.environ if n.startswith("PARLEY_") or n == "MODEL_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARLEY_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("PARLEY_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "models"


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(parley, ["model", *arguments], input=answer)


def refused(kind: type[ServiceError], *arguments: str) -> str:
    error = run(*arguments).exception
    assert isinstance(error, kind), error
    return error.message


@pytest.mark.parametrize("verb", ["", "list", "pull", "add", "remove", "switch", "plan"])
def test_help_shows_an_example_before_the_options(verb: str) -> None:
    result = run(*[verb] if verb else [], "-h")
    assert result.exit_code == 0
    assert 0 < result.output.index("Example") < result.output.index("Options:")


def test_the_list_has_every_name_and_what_is_here() -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert {"pocket", "gpt2", "gpt2-medium", "distilgpt2", "llama3-1b", "llama3-3b"} <= set(rows)
    assert (rows["pocket"]["present"], rows["pocket"]["bytes"]) == (True, POCKET.stat().st_size)
    assert not rows["gpt2"]["present"]
    assert all(row["licence"] and row["context"] and row["memory"] for row in rows.values())
    assert "on the hub" in run("list").output


def test_a_model_is_added_listed_and_forgotten(models_dir: Path) -> None:
    assert run("add", "mine", str(POCKET)).output == f"mine is {POCKET}.\n"
    added = read_additions(models_dir)["mine"]
    assert added.path == POCKET
    assert "mine " in run("list").output
    assert run("remove", "mine", answer="n\n").exit_code == 1
    assert run("remove", "mine", answer="y\n").exit_code == 0
    assert (read_additions(models_dir), POCKET.exists()) == ({}, True)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (InvalidRequest, ("add", "My Model", "pocket"), "lower-case letters"),
        (Conflict, ("add", "gpt2", "pocket"), "in the catalogue already"),
        (ModelFileError, ("add", "mine", "/nowhere/x.gguf"), "does not exist"),
        (InvalidRequest, ("add", "mine", "pocket", "--adapter", "/a.gguf=high"), "no scale"),
        (ModelFileError, ("plan", "gpt2"), "parley model pull gpt2"),
        (ModelNotFound, ("plan", "pokcet"), "pocket"),
        (ModelNotFound, ("remove", "gpt2"), "no file that was fetched"),
        (EngineUnavailable, ("switch", "pocket"), "parley serve"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    kind: type[ServiceError], arguments: tuple[str, ...], words: str
) -> None:
    assert words in refused(kind, *arguments)


def test_a_registry_that_cannot_be_read_is_one_sentence(models_dir: Path) -> None:
    models_dir.mkdir()
    file = models_dir / "registry.toml"
    for text, words in (
        ("[broken", "is not a table of models"),
        ("x = 3", "'x' is no table"),
        ('[x]\nrepo = "a/b"', "'file' is missing"),
        ('[x]\nfile = "x.gguf"\nmode = "sing"', "sing"),
        ('[x]\nfile = "x.gguf"\n[[x.golden]]\nprompt = "Hi"\npattern = "("', "model 'x'"),
    ):
        file.write_text(text)
        assert words in refused(ConfigurationError, "list")


def test_golden_prompts_and_adapters_survive_a_rewrite(models_dir: Path) -> None:
    models_dir.mkdir()
    (models_dir / "registry.toml").write_text(
        '[odd]\nfile = "odd.gguf"\nmin_tokens_per_second = 2.5\n'
        '[[odd.adapters]]\npath = "a.gguf"\nscale = 0.5\n'
        '[[odd.golden]]\nprompt = "Say \\"hi\\"\\n"\npattern = "h\\\\w"\n'
    )
    before = read_additions(models_dir)["odd"]
    run("add", "mine", str(POCKET))
    assert read_additions(models_dir)["odd"] == before
    assert before.golden[0].prompt == 'Say "hi"\n'


def test_a_model_is_fetched_shown_and_deleted(models_dir: Path) -> None:
    with serving(LoopbackHub(POCKET.read_bytes())) as hub:
        fetched = subprocess.run(
            [str(PARLEY), "model", "pull", TINY],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"},
        )
    path = models_dir / "acme--Tiny-GGUF" / "tiny.gguf"
    assert f"tiny is at {path}." in fetched.stdout
    assert path.stat().st_size == POCKET.stat().st_size
    assert run("remove", TINY, "--yes").output == "tiny is removed.\n"
    assert not path.exists()


def test_offline_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_MODEL__OFFLINE", "true")
    assert "forbids fetching" in refused(DownloadFailed, "pull", "gpt2")


def test_the_plan_says_what_memory_goes_where() -> None:
    facts = json.loads(run("plan", "pocket", "--slots", "2", "--context", "512", "--json").output)
    assert (facts["slots"], facts["context_length"], facts["fits"]) == (2, 512, True)
    assert 4_000_000 < facts["weights"] < 6_000_000
    assert facts["conversations"] > 0
    text = run("plan", "pocket", "--slots", "2", "--context", "512").output
    assert text.startswith("2 slots of 512 tokens:")


def test_the_running_service_is_told_to_switch(tmp_path: Path, models_dir: Path) -> None:
    with supervised(
        tmp_path, wanted=conduct(tmp_path, "old"), weigh=["/bin/false"], trial=None
    ) as service:
        service.wait_for(lambda s: s.current is not None)
        run("add", "mine", str(POCKET))
        result = run("switch", "mine")
        assert isinstance(result.exception, SwitchFailed)
        assert "old goes on answering" in result.exception.message
        assert "mine: failed" in result.stderr
        run("add", "old", str(POCKET))
        assert "answering" in refused(Conflict, "remove", "old")
