"""What the README says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from service import __version__
from service.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_named_file_of_the_service_is_there() -> None:
    named = set(re.findall(r"`((?:api|chat|ipc|engine|formats)/[a-z_/]+\.py)`", README))
    assert named
    assert {name for name in named if not (ROOT / "service" / name).exists()} == set()


@pytest.mark.parametrize(
    ("variable", "default"), re.findall(r"^\| `(PARLEY_[A-Z_]+)` \| `([^`~]+)` \|", README, re.M)
)
def test_settings_have_the_defaults_that_it_names(
    variable: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    value: object = Settings()
    for name in variable.removeprefix("PARLEY_").lower().split("__"):
        value = getattr(value, name)
    assert not isinstance(value, BaseModel)
    assert str(value).lower().removesuffix(".0") == default


def test_the_first_question_is_a_body_that_the_route_takes() -> None:
    body = re.search(r"-d '(\{.*\})'", README)
    assert body
    assert json.loads(body[1])["model"] == "pocket"


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
