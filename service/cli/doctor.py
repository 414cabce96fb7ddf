"""`parley doctor`: one page of what is wrong, and the command that mends it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from service.cli.checkup import examine
from service.cli.finding import Verdict
from service.settings import load_settings

EXIT_WRONG = 1
_MARKS = {Verdict.FINE: "ok  ", Verdict.NOTE: "note", Verdict.WRONG: "BAD "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Look for what is wrong: model, memory, disk, port, graphics driver, clock, unit, nginx.

    \b
    Examples:
      parley doctor
      parley doctor --json

    Changes nothing and tells no secret, so its page can be shown to others. Exit code 1 where
    something is wrong.
    """
    findings = list(examine(load_settings()))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            click.echo(f"{_MARKS[finding.verdict]}  {finding.about:<{width}}  {finding.fact}")
            if finding.mend:
                click.echo(f"      {'':<{width}}  → {finding.mend}")
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        sys.exit(EXIT_WRONG)
