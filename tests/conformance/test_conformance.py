"""Parley does what the vendors document, and the page that says so is the one that was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.checks import CHECKS, Verdict
from tests.conformance.judging import PEERS, judged_parley
from tests.conformance.table import PAGE, Column, load_columns, to_page, to_table
from tests.sdk.published import load_published, place_of_schema


@pytest.mark.model
@pytest.mark.sdk
def test_every_check_passes_and_the_page_is_the_generated_one(tmp_path: Path) -> None:
    published = load_published(place_of_schema())
    column = judged_parley(tmp_path, published)
    wrong = {
        key: outcome.reason
        for key, outcome in column.outcomes.items()
        if outcome.verdict is not Verdict.YES
    }
    assert wrong == {}
    columns = [column, *load_columns(PEERS)]
    page = PAGE.read_text()
    assert to_table(columns) in page, "`make conformance` writes it anew"
    if published is not None:
        assert page == to_page(columns, published.version)


@pytest.mark.parametrize("path", sorted(PEERS.glob("*.json")), ids=lambda path: path.stem)
def test_a_peer_s_outcomes_are_of_today_s_checks(path: Path) -> None:
    column = Column.from_json(path.read_text())
    assert set(column.outcomes) == {f"{one.area}: {one.title}" for one in CHECKS}
    assert column.to_json() == path.read_text()


def test_no_two_checks_are_called_the_same() -> None:
    titles = [(one.area, one.title) for one in CHECKS]
    assert len(titles) == len(set(titles))
