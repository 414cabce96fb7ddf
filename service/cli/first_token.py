"""The first access token of a service that starts where others can connect: made and shown once,
for an image that is run without any preparation."""

from __future__ import annotations

import json
import shlex

import click

from service.auth.tokens import AccessTokens
from service.cli.database import with_database
from service.domain.access import Scope
from service.settings import ApiSettings, Settings
from service.store.access_tokens import SqlAccessTokens

NAME = "first"
_QUESTION = json.dumps({"message": "What is the capital of France?"})
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # shown, not bound


def make_first_token(settings: Settings) -> None:
    """Make a token with the scope `chat`, and print it with one line to try.

    Raises `ConfigurationError`, `StoreUnavailable`, and `InvalidRequest` where there is one of that
    name already.
    """
    _, secret = with_database(
        lambda database: AccessTokens(SqlAccessTokens(database)).create(
            NAME, frozenset({Scope.CHAT}), None
        ),
        settings,
    )
    click.echo(to_words(settings.api, secret))


def to_words(api: ApiSettings, secret: str) -> str:
    """What a person reads in the log: the secret, and a line for a shell."""
    host = _EVERY_ADDRESS.get(api.host, f"[{api.host}]" if ":" in api.host else api.host)
    place = f"http://{host}:{api.port}"
    if api.unix_socket is not None:
        place = f"--unix-socket {shlex.quote(str(api.unix_socket))} http://localhost"
    return (
        f"There was no access token yet, so the token {NAME!r} was made. It is shown this once:\n"
        f"\n  {secret}\n\n"
        "Try it, once the model has loaded (the page there asks for the token, too):\n"
        f"\n  curl {place}/chat -H 'Authorization: Bearer {secret}' "
        f"-H 'Content-Type: application/json' -d '{_QUESTION}'\n"
    )
