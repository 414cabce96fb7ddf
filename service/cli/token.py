"""`parley token`: hand out access, look at it, take it back. Works while the service runs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from service.auth.tokens import AccessTokens
from service.domain.access import AccessToken, Scope
from service.domain.errors import InvalidRequest
from service.settings import load_settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import open_database

T = TypeVar("T")

_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_SECONDS = 100 * 365 * 86400
_LIFETIME = re.compile(r"([1-9][0-9]{0,8})([mhdw])", re.ASCII)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
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
@as_json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    requests_per_minute: int | None,
    as_json: bool,
) -> None:
    """Make an access token and print it, this once.

    \b
    Examples:
      parley token create --name laptop
      parley token create --name batch --scope chat --scope embed --expires 12h
      parley token create --name guests --requests-per-minute 30
      curl -H "Authorization: Bearer $(parley token create --name ci)" http://host:8000/v1/models
    """
    opened = frozenset(Scope(scope) for scope in scopes) or frozenset({Scope.CHAT})
    lifetime = None if expires is None else to_seconds(expires)
    made, secret = _with_tokens(
        lambda tokens: tokens.create(name, opened, lifetime, requests_per_minute)
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
    async def run() -> T:
        database = await open_database(load_settings())
        try:
            return await work(AccessTokens(SqlAccessTokens(database)))
        finally:
            await database.aclose()

    return asyncio.run(run())
