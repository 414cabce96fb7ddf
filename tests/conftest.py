"""What holds for all tests."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.alone import on_the_track
from tests.e2e.parley import Parley, running_parley

# A busy machine makes any example slow now and then; pytest-timeout looks after what hangs.
settings.register_profile("parley", deadline=None)
settings.load_profile("parley")

# What starts processes takes longest, so it begins first.
LONGEST_FIRST = ("services", "browser", "model", "sdk")


@pytest.fixture(scope="session")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """Pocket behind `parley serve`, for all who leave it as they found it. Others start their own,
    under the same name."""
    with running_parley(tmp_path_factory.mktemp("parley"), "--model", "pocket") as service:
        service.wait_healthy()
        yield service


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file, and all that share the one service, run in one process, in any order."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group_of(item)))
    items.sort(key=_turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With several processes, a test that measures time has the machine to itself."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with on_the_track(alone=item.get_closest_marker("timing") is not None):
        return (yield)


def _group_of(item: pytest.Item) -> str:
    fixtures = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    shared = fixtures.get("parley", ())
    return "the one service" if shared and shared[-1].scope == "session" else str(item.path)


def _turn(item: pytest.Item) -> int:
    markers = [name for name in LONGEST_FIRST if item.get_closest_marker(name)]
    return LONGEST_FIRST.index(markers[0]) if markers else len(LONGEST_FIRST)


def pytest_unconfigure() -> None:
    """llama_cpp leaves two files open, which Python says at its end, after the report."""
    loaded = sys.modules.get("llama_cpp._utils")
    if loaded is not None:
        loaded.outnull_file.close()
        loaded.errnull_file.close()
