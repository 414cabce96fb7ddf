"""What docs/security.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.api.access import OPEN_PATHS, OPEN_PREFIX, SCOPES, is_open_to_all, scope_of
from service.auth.secrets import NUM_SHOWN
from service.auth.throttle import BURST, SECONDS_EACH
from service.domain.access import Scope

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_proof_is_a_test() -> None:
    proofs = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(proofs) > 20
    missing = [
        f"{path}::{name}"
        for path, name in proofs
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_threat_says_what_stops_it_and_has_a_proof() -> None:
    rows = PAGE.split("## Threats")[1].split("\n## ")[0].splitlines()
    threats = [row.strip("|").split("|") for row in rows if row.startswith("|")][2:]
    assert len(threats) > 30
    assert [row for row in threats if len(row) != 3 or not all(cell.strip() for cell in row)] == []
    proof = re.compile(r"`tests/[\w/]+\.py::test_\w+`")
    assert [row[2] for row in threats if not proof.search(row[2])] == []
    assert [row[2] for row in threats if "`" in proof.sub("", row[2])] == []


def test_what_is_open_and_what_scopes_open_is_written_down() -> None:
    table = PAGE.split("Open to everybody")[1].split("`/metrics` also")[0]
    assert set(re.findall(r"`(/[\w/]*)`", table)) == OPEN_PATHS | {OPEN_PREFIX}
    scopes = PAGE.split("| Scope |")[1].split("Open to everybody")[0]
    assert {scope.value for scope in Scope} <= set(re.findall(r"^\| `([\w:]+)`", scopes, re.M))
    named = {path.rstrip("/") for path in re.findall(r"`(/[\w/.-]+)`", scopes)}
    assert named == {path for path in SCOPES if path}


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"{BURST}, then one every {SECONDS_EACH:.0f} s" in PAGE
    assert f"its first {NUM_SHOWN} characters" in PAGE


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/models", None),
        ("/v1/models/a/b", None),
        ("/v1/modelsx", Scope.CHAT),
        ("/v1/admin", Scope.ADMIN),
        ("/v1/admin/tokens/7", Scope.ADMIN),
        ("/v1", Scope.CHAT),
        ("/anything/else", Scope.CHAT),
    ],
)
def test_a_path_takes_the_scope_of_the_nearest_that_is_listed(
    path: str, scope: Scope | None
) -> None:
    assert scope_of(path) is scope


@pytest.mark.parametrize("path", ["", "/staticx", "/static", "/health/", "/login/", "/livez/x"])
def test_what_only_looks_open_is_closed(path: str) -> None:
    assert not is_open_to_all(path)
