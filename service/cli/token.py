"""`parley token`: hand out access, look at it, take it back. Works while the service runs."""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from service.auth.spending import since
from service.auth.tokens import AccessTokens
from service.cli.database import with_database
from service.cli.group import CommandGroup
from service.domain.access import AccessToken, Limits, Scope, Spent
from service.domain.errors import InvalidRequest
from service.store.access_tokens import SqlAccessTokens
from service.store.database import Database
from service.store.spending import SqlSpending

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_SECONDS = 100 * 365 * 86400
_LIFETIME = re.compile(r"([1-9][0-9]{0,8})([mhdw])", re.ASCII)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def limit_option(name: str, meaning: str) -> Callable[[F], F]:
    """An option that limits something from 1 up, and does not where it is not given."""
    return click.option(
        name, metavar="N", type=click.IntRange(1), help=f"{meaning}  [default: no limit]"
    )


@click.group(cls=CommandGroup)
def token() -> None:
    """Access tokens: who may use the service, and for what.

    \b
    Examples:
      parley token create --name laptop
      parley token create --name prometheus --scope metrics --expires 90d
      parley token revoke laptop

    Once there is one, every request needs one. A change holds at once; nothing is restarted.
    """


@token.command()
@click.option("--name", required=True, metavar="NAME", help="What you will know it by.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it opens; may be given several times.  [default: chat]",
)
@click.option(
    "--expires", metavar="90d", help="A number of m, h, d or w from now.  [default: never]"
)
@click.option(
    "--requests-per-minute",
    metavar="N",
    type=click.IntRange(1, 100_000),
    help="How many requests it is good for in any minute.  [default: no limit]",
)
@limit_option("--tokens-per-minute", "How many tokens, of prompts and answers, in any minute.")
@limit_option("--tokens-per-day", "How many tokens a day (UTC).")
@limit_option("--tokens-per-month", "How many tokens a month (UTC).")
@limit_option("--streams", "How many answers at once.")
@limit_option("--prompt-tokens", "How long a prompt may be.")
@limit_option("--answer-tokens", "How long an answer may be.")
@click.option("--weight", default=1.0, show_default=True, help="Its share of a busy engine.")
@click.option(
    "--model", "models", multiple=True, help="The only models it may use.  [default: all]"
)
@as_json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    requests_per_minute: int | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Make an access token and print it, this once.

    \b
    Examples:
      parley token create --name laptop
      parley token create --name batch --scope chat --scope embed --expires 12h
      parley token create --name guests --requests-per-minute 30 --tokens-per-day 50000
      curl -H "Authorization: Bearer $(parley token create --name ci)" http://host:8000/v1/models
    """
    opened = frozenset(Scope(scope) for scope in scopes) or frozenset({Scope.CHAT})
    lifetime = None if expires is None else to_seconds(expires)
    made, secret = _with_tokens(
        lambda tokens: tokens.create(
            name, opened, lifetime, requests_per_minute, limits=Limits(**limits)
        )
    )
    _print_secret(made, secret, as_json)


@token.command()
@click.argument("named", metavar="NAME-OR-PREFIX")
@as_json_option
def rotate(named: str, as_json: bool) -> None:
    """Replace a token's secret and print the new one; the old one ends at once.

    \b
    Examples:
      parley token rotate laptop
      parley token rotate parley_3fK

    Name, scopes, conversations and lifetime stay as they were.
    """
    _print_secret(*_with_tokens(lambda tokens: tokens.rotate(named)), as_json)


@token.command()
@click.argument("named", metavar="NAME-OR-PREFIX")
def revoke(named: str) -> None:
    """End a token for good.

    \b
    Examples:
      parley token revoke laptop
      parley token revoke parley_3fK
    """
    ended = _with_tokens(lambda tokens: tokens.revoke(named))
    click.echo(f"{ended.name} ({ended.prefix}…) opens nothing any more.")


@token.command("list")
@as_json_option
def list_tokens(as_json: bool) -> None:
    """List the access tokens, also those that have ended. Secrets are not kept, so not shown.

    \b
    Example:
      parley token list --json
    """
    found = _with_tokens(lambda tokens: tokens.list_all())
    if as_json:
        click.echo(json.dumps([to_facts(each) for each in found], indent=1))
    elif not found:
        click.echo("There is no access token yet; `parley token create --name laptop` makes one.")
    else:
        click.echo(to_table(found, datetime.now(UTC).timestamp()))


@token.command()
@click.argument("named", metavar="NAME", required=False)
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 366))
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def usage(named: str | None, days: int, as_csv: bool) -> None:
    """What access tokens were used for, by day (UTC) and model; of NAME only, where it is given.

    \b
    Examples:
      parley token usage
      parley token usage laptop --days 7 --csv
    """
    names, found = with_database(lambda database: _usage(database, since(days, time.time())))
    header = ("TOKEN", "DAY", "MODEL", "ANSWERS", "PROMPT", "CACHED", "COMPLETION")
    rows = [
        (names.get(s.principal_id, s.principal_id), *(str(v) for v in list(asdict(s).values())[1:]))
        for s in found
    ]
    rows = [row for row in rows if named in (None, row[0])]
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerows([tuple(word.lower() for word in header), *rows])
    else:
        click.echo(_aligned([header, *rows]))


@token.command()
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
def audit(limit: int) -> None:
    """What was done to access tokens and models, and by whom, the newest first.

    \b
    Example:
      parley token audit
    """
    acts = _with_tokens(lambda tokens: tokens.acts(limit))
    rows = [(_to_iso(act.at) or "", act.actor, act.act, act.about) for act in acts]
    click.echo(_aligned([("WHEN", "WHO", "DID", "TO"), *rows]))


async def _usage(database: Database, day: str) -> tuple[dict[str, str], list[Spent]]:
    tokens = await AccessTokens(SqlAccessTokens(database)).list_all()
    found = await SqlSpending(database).spent(None, day)
    return {kept.id: kept.name for kept in tokens}, found


def to_seconds(text: str) -> float:
    """`90d` in seconds. Raises `InvalidRequest`."""
    found = _LIFETIME.fullmatch(text)
    seconds = int(found[1]) * _UNIT_SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _MAX_SECONDS:
        raise InvalidRequest(
            f"--expires {text} is not accepted: a number with m, h, d or w, such as 90d, "
            "up to 100 years."
        )
    return float(seconds)


def to_facts(kept: AccessToken) -> dict[str, Any]:
    """A token for programs; times as ISO 8601 in UTC, null where there is none."""
    return {
        "name": kept.name,
        "id": kept.id,
        "prefix": kept.prefix,
        "scopes": sorted(scope.value for scope in kept.scopes),
        "issued_at": _to_iso(kept.issued_at),
        "expires_at": _to_iso(kept.expires_at),
        "last_used_at": _to_iso(kept.last_used_at),
        "revoked_at": _to_iso(kept.revoked_at),
        "requests_per_minute": kept.requests_per_minute,
        "limits": {k: v for k, v in asdict(kept.limits).items() if v not in (None, ())},
    }


def to_table(found: list[AccessToken], now: float) -> str:
    """Tokens for people, one line each."""
    lines = [("NAME", "BEGINS", "SCOPES", "STATE", "EXPIRES", "LAST USED")]
    lines += [
        (
            kept.name,
            kept.prefix + "…",
            ",".join(sorted(scope.value for scope in kept.scopes)),
            _state(kept, now),
            _to_day(kept.expires_at),
            _to_day(kept.last_used_at),
        )
        for kept in found
    ]
    return _aligned(lines)


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _state(kept: AccessToken, now: float) -> str:
    if kept.revoked_at is not None:
        return "revoked"
    return "valid" if kept.is_valid(now) else "expired"


def _to_iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _to_day(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _print_secret(kept: AccessToken, secret: str, as_json: bool) -> None:
    """The secret alone on stdout, so that a script can take it; words go to stderr."""
    if as_json:
        click.echo(json.dumps({**to_facts(kept), "access_token": secret}, indent=1))
        return
    click.echo(f"Access token {kept.name}; it is shown this once and not kept:", err=True)
    click.echo(secret)


def _with_tokens(work: Callable[[AccessTokens], Awaitable[T]]) -> T:
    return with_database(lambda database: work(AccessTokens(SqlAccessTokens(database))))
