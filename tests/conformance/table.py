"""The outcomes as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.conformance.checks import CHECKS, Outcome, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
_MARKS = {Verdict.YES: "yes", Verdict.LOOSE: "loosely", Verdict.NO: "**no**", Verdict.ABSENT: "-"}
_HEAD = """\
# Conformance

What the vendors document, asked for with their own clients (openai-python, anthropic-sdk) and with
plain requests. `make conformance` starts Parley with Pocket, runs every check below, and writes
this page; a test of the suite holds the two together.

{referee}

Any other server can be judged by the same checks:

    make conformance ARGS="--url http://127.0.0.1:8080 --model NAME --name llama-server"

prints its table; with `--version TEXT --keep` it becomes a column here. "yes": as documented.
"loosely": so, but for a body or an event that the schema does not allow. "no": not so. Both are
explained below. "-": the server has no such endpoint, and says so. All were asked with the same
chat model, Pocket, which sees no images, and started with their defaults but for what is said
below. Parley embeds with a small random encoder and needs an access token; the others embed with
Pocket and need none.
"""
_REFEREE = (
    "Every JSON body and every server-sent event of these runs is validated: against OpenAI's\n"
    "published schema {version}, and against the types of anthropic-sdk."
)
_WITHOUT = (
    "OpenAI's published schema was not there, so bodies were not held to it: name it in "
    "`--schema`, or in the environment's `OPENAI_OPENAPI`."
)


@dataclass(frozen=True, slots=True)
class Column:
    """One server's outcomes, by check; `about` says which version it is, and when."""

    name: str
    about: str
    outcomes: dict[str, Outcome]

    def to_json(self) -> str:
        told = {
            key: [outcome.verdict.value, outcome.reason]
            for key, outcome in sorted(self.outcomes.items())
        }
        facts = {"name": self.name, "about": self.about, "outcomes": told}
        return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Column:
        facts: dict[str, Any] = json.loads(text)
        outcomes = {
            key: Outcome(Verdict(verdict), reason)
            for key, (verdict, reason) in facts["outcomes"].items()
        }
        return cls(facts["name"], facts["about"], outcomes)


def load_columns(folder: Path) -> list[Column]:
    """The servers that were judged before."""
    return [Column.from_json(path.read_text()) for path in sorted(folder.glob("*.json"))]


def to_page(columns: Sequence[Column], schema_version: str | None) -> str:
    referee = _REFEREE.format(version=schema_version) if schema_version else _WITHOUT
    head = _HEAD.format(referee=referee)
    return "\n".join([head, to_table(columns), *_servers(columns), *_reasons(columns)])


def to_table(columns: Sequence[Column]) -> str:
    """One row for each check, in the order in which they are asked."""
    names = " | ".join(column.name for column in columns)
    lines = [f"| | {names} |", "|---|" + ":---:|" * len(columns)]
    for area, checks in groupby(CHECKS, key=lambda one: one.area):
        lines.append(f"| **{area}** |" + " |" * len(columns))
        for one in checks:
            marks = [_mark(column, f"{one.area}: {one.title}") for column in columns]
            lines.append(f"| {one.title} | {' | '.join(marks)} |")
    totals = [f"{_passed(column)} of {len(CHECKS)}" for column in columns]
    lines.append(f"| **as documented** | {' | '.join(totals)} |")
    return "\n".join(lines) + "\n"


def _servers(columns: Sequence[Column]) -> list[str]:
    return ["## Which servers", "", *(f"- {c.name}: {c.about}" for c in columns), ""]


def _reasons(columns: Sequence[Column]) -> list[str]:
    lines: list[str] = []
    for column in columns:
        wrong: dict[str, list[str]] = {}
        for one in CHECKS:
            title = f"{one.area}: {one.title}"
            outcome = column.outcomes.get(title)
            if outcome is not None and outcome.reason:
                wrong.setdefault(outcome.reason, []).append(title)
        if wrong:
            lines += [f"## What is not as documented: {column.name}", ""]
        for reason, titles in wrong.items():
            lines += [_quoted(reason), "", *(f"- {title}" for title in titles), ""]
    return lines


def _mark(column: Column, key: str) -> str:
    outcome = column.outcomes.get(key)
    return "?" if outcome is None else _MARKS[outcome.verdict]


def _passed(column: Column) -> int:
    return sum(outcome.verdict is Verdict.YES for outcome in column.outcomes.values())


def _quoted(reason: str) -> str:
    return "`" + reason.replace("`", "'") + "`"
