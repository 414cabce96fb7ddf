"""The table of settings: what it accepts, and what it says to what it refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from service.domain.errors import ConfigurationError
from service.older_names import OLDER_NAMES
from service.settings import (
    child_environment,
    load_settings,
    read_dotenv,
    to_environment,
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.upper().startswith("PARLEY_") or n in OLDER_NAMES]:
        monkeypatch.delenv(name)


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_API__PORT", "9000")
    monkeypatch.setenv("PARLEY_API__WORKERS", "3")
    settings = load_settings({"api": {"port": 9001}})
    assert (settings.api.port, settings.api.workers) == (9001, 3)


def test_a_child_builds_the_same_table_from_the_variables_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(
        {"model": {"name": "pocket", "offline": True}, "engine": {"slots": 3}, "drain_seconds": 7}
    )
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_a_child_can_tell_what_was_set_from_what_is_a_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARLEY_ENGINE__CONTEXT_LENGTH", "4096")
    given = child_environment(load_settings({"model": {"name": "pocket"}, "api": {}}))
    for name in [name for name in os.environ if name.startswith("PARLEY_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.model_fields_set == {"model", "engine"}
    assert settings.model.model_fields_set == {"name"}
    assert settings.engine.model_fields_set == {"context_length"}


def test_threads_that_wait_sleep_soon_unless_the_operator_decided_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert child_environment(load_settings())["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in child_environment(load_settings())
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert child_environment(load_settings())["GOMP_SPINCOUNT"] == "5"
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    assert child_environment(load_settings())["OPENBLAS_THREAD_TIMEOUT"] == "14"
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "20")
    assert child_environment(load_settings())["OPENBLAS_THREAD_TIMEOUT"] == "20"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PARLEY_API__PORT", "99999", "PARLEY_API__PORT='99999' is not accepted"),
        ("PARLEY_ENGINE__BLAS", "maybe", "'auto', 'on' or 'off'"),
        ("PARLEY_DRAIN_SECONDS", "soon", "PARLEY_DRAIN_SECONDS='soon' is not accepted"),
        ("PARLEY_MODEL__SERVED_NAME", "a b", "PARLEY_MODEL__SERVED_NAME='a b' is not accepted"),
        ("PARLEY_MODEL__SERVED_NAME", "x" * 201, "at most 200 characters"),
        ("PARLEY_ENGINE__SLOTZ", "4", "PARLEY_ENGINE__SLOTZ is not a setting"),
        ("PARLEY_RUNTIME_DIR", "", "must be the path of a directory"),
        ("PARLEY_STATE_DIR", "", "must be the path of a directory"),
        ("PARLEY_ENGINE__SLOTZ", "4", "Did you mean PARLEY_ENGINE__SLOTS?"),
    ],
)
def test_a_wrong_value_stops_the_start_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


def test_model_path_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_PATH", "/models/a.gguf")
    assert load_settings().model.name == "/models/a.gguf"


def test_two_different_models_in_the_environment_are_a_contradiction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_PATH", "/models/a.gguf")
    monkeypatch.setenv("PARLEY_MODEL__NAME", "pocket")
    with pytest.raises(ConfigurationError, match="contradict"):
        load_settings()


def test_a_group_is_not_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_API", "yes")
    with pytest.raises(ConfigurationError, match="api"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "text", "group", "field", "value"),
    [
        ("N_CTX", "2048", "engine", "context_length", 2048),
        ("N_THREADS", "8", "engine", "threads", 8),
        ("N_GPU_LAYERS", "40", "engine", "gpu_layers", 40),
        ("MAX_TOKENS_HARD_CAP", "1024", "chat", "max_tokens", 1024),
        ("MODEL_NAME", "llama-local", "model", "served_name", "llama-local"),
        ("PORT", "8002", "api", "port", 8002),
        ("LLM_MODEL_NAME", "llama3-1b", "model", "name", "llama3-1b"),
        ("LLM_DEVICE", "cpu", "engine", "gpu_layers", 0),
        ("LLM_DEVICE", "CUDA", "engine", "gpu_layers", -1),
        ("LLM_LOG_LEVEL", "DEBUG", "log", "level", "debug"),
        ("LLM_MAX_CONVERSATION_LENGTH", "7", "chat", "max_exchanges", 7),
    ],
)
def test_what_earlier_services_called_a_setting_is_understood(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    text: str,
    group: str,
    field: str,
    value: object,
) -> None:
    monkeypatch.setenv(variable, text)
    settings = load_settings()
    assert getattr(getattr(settings, group), field) == value
    assert variable not in child_environment(settings)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PORT": "http"}, "PORT='http' is not accepted: input should be a valid integer"),
        ({"LLM_DEVICE": "tpu"}, "LLM_DEVICE=tpu is not accepted: cpu, cuda or auto is."),
        (
            {"MODEL_PATH": "/a.gguf", "LLM_MODEL_NAME": "gpt2"},
            "LLM_MODEL_NAME=gpt2 and MODEL_PATH=/a.gguf contradict each other",
        ),
        (
            {"PORT": "1", "PARLEY_API__PORT": "2"},
            "PORT=1 and PARLEY_API__PORT=2 contradict each other",
        ),
        ({"MODEL_DIR": "/nowhere"}, "MODEL_DIR=/nowhere must be a folder with one GGUF file"),
    ],
)
def test_an_older_name_that_cannot_be_meant_so_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        load_settings()


def test_the_one_model_of_a_folder_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.gguf").touch()
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    assert load_settings().model.name == str(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ConfigurationError, match=r"there is a\.gguf, b\.gguf"):
        load_settings()


def test_a_dotenv_file_says_what_the_environment_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=1234\nN_CTX=512\n")
    monkeypatch.setenv("N_CTX", "1024")
    read_dotenv()
    settings = load_settings()
    assert (settings.api.port, settings.engine.context_length) == (1234, 1024)
