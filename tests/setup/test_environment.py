"""The environment is made once, and then only looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploy.setup.environment import Checkout, prepare

ROOT = Path(__file__).parents[2]
INPUTS = [
    "pyproject.toml",
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-build.lock",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout whose environment has no Python: installing anything would fail."""
    for name in INPUTS:
        shutil.copy(ROOT / name, tmp_path)
    checkout = Checkout(tmp_path)
    checkout.venv.mkdir()
    return checkout


def finish(checkout: Checkout, dev: bool) -> None:
    checkout.stamp.write_text(json.dumps(checkout.wanted(dev)))


@pytest.mark.parametrize("dev", [False, True])
def test_a_second_set_up_does_not_call_pip(checkout: Checkout, dev: bool) -> None:
    finish(checkout, dev)
    prepare(checkout, dev)
    assert checkout.is_ready(dev)


def test_an_environment_for_development_is_good_for_running(checkout: Checkout) -> None:
    finish(checkout, dev=True)
    assert checkout.is_ready(dev=False)


def test_an_environment_for_running_is_not_good_for_development(checkout: Checkout) -> None:
    finish(checkout, dev=False)
    assert not checkout.is_ready(dev=True)


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock", "requirements-build.lock"])
def test_a_changed_input_makes_the_environment_stale(checkout: Checkout, name: str) -> None:
    finish(checkout, dev=True)
    (checkout.root / name).write_text((checkout.root / name).read_text() + "\n# changed\n")
    assert not checkout.is_ready(dev=False)


def test_a_moved_checkout_is_set_up_anew(checkout: Checkout, tmp_path: Path) -> None:
    finish(checkout, dev=False)
    moved = Checkout(checkout.root.rename(tmp_path.with_name(tmp_path.name + "-moved")))
    assert not moved.is_ready(dev=False)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_stamp_means_not_ready(checkout: Checkout, content: str) -> None:
    checkout.stamp.write_text(content)
    assert not checkout.is_ready(dev=False)
