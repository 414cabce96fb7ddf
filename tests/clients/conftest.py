"""A real service on Pocket, and the clients that people use with others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.tools import AIDER, LIBRARIES, Tools, install
from tests.e2e.parley import Parley, running_parley


@pytest.fixture(scope="session")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    variables = {
        "PARLEY_CHAT__ALIASES": "gpt-*, claude-*",
        "PARLEY_CHAT__MAX_TOKENS": "200",  # Pocket finds no end where it is asked to edit
        "PARLEY_LOG__FORMAT": "json",
    }
    directory = tmp_path_factory.mktemp("parley")
    with running_parley(directory, "--model", "pocket", environment=variables) as service:
        service.wait_healthy()
        yield service


@pytest.fixture
def libraries(tmp_path: Path) -> Tools:
    return Tools(install(LIBRARIES), tmp_path)


@pytest.fixture
def aider(tmp_path: Path) -> Tools:
    return Tools(install(AIDER), tmp_path)
