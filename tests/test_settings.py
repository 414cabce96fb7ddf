"""The table of settings: what it accepts, and what it says to what it refuses."""

from __future__ import annotations

import os

import pytest

from service.domain.errors import ConfigurationError
from service.settings import child_environment, load_settings, to_environment


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.upper().startswith("PARLEY_") or n == "MODEL_PATH"]:
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


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PARLEY_API__PORT", "99999", "PARLEY_API__PORT='99999' is not accepted"),
        ("PARLEY_ENGINE__BLAS", "maybe", "'auto', 'on' or 'off'"),
        ("PARLEY_DRAIN_SECONDS", "soon", "PARLEY_DRAIN_SECONDS='soon' is not accepted"),
        ("PARLEY_ENGINE__SLOTZ", "4", "PARLEY_ENGINE__SLOTZ is not a setting"),
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
