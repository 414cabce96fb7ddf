"""Who may ask for what: every path needs an access token, except for those listed here.

Decided by path and before routing, so that a route that somebody adds, mounts or mistypes is
closed until this file opens it.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from service.api.deps import Parts
from service.api.errors import ErrorReplies, to_problem
from service.auth.spending import REPORT
from service.domain import access
from service.domain.access import ANONYMOUS, Principal, Standing
from service.domain.errors import Forbidden, ServiceError, Unauthenticated
from service.log import get_logger

_log = get_logger(__name__)

# The page's own files, the way to hand it a token, and whether the service is there.
OPEN_PATHS = frozenset(
    {"/", "/login", "/health", "/v1/health", "/api/v1/health", "/livez", "/readyz"}
)
OPEN_PREFIX = "/static/"

# What a path takes beside a valid token: itself, or anything below it. None: any token will do.
SCOPES: Mapping[str, access.Scope | None] = {
    "/docs": None,
    "/redoc": None,
    "/openapi.json": None,
    "/v1/models": None,
    "/v1/me": None,
    "/api/v1/chat/models": None,
    "/api/v1/model-info": None,
    # Whom it is for decides what these take: see `models.may_switch_for_all`.
    "/v1/models/switch": None,
    "/api/v1/chat/switch-model": None,
    "/api/v1/load-model": None,
    "/metrics": access.Scope.METRICS,
    "/v1/embeddings": access.Scope.EMBED,
    "/v1/rerank": access.Scope.EMBED,
    "/v1/reranking": access.Scope.EMBED,
    "/rerank": access.Scope.EMBED,
    "/reranking": access.Scope.EMBED,
    "/v1/admin": access.Scope.ADMIN,
    "": access.Scope.CHAT,  # everything else
}
COOKIE = "parley_access"
_PROXY_HEADERS = ("x-forwarded-for", "x-real-ip", "forwarded")
_HARMLESS_METHODS = {"GET", "HEAD", "OPTIONS"}


class Access:
    """Turn away, in the words of the path's dialect, whoever may not ask for it.

    Leaves the principal in the request's state for `deps.PrincipalDep`.
    """

    def __init__(self, app: ASGIApp, replies: ErrorReplies) -> None:
        self.app = app
        self.replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there is none; whoever adds one decides here who may
            await WebSocketClose(code=1008)(scope, receive, send)
            return
        if scope["type"] != "http" or is_open_to_all(scope["path"]):
            await self.app(scope, receive, send)
            return
        state: dict[str, Any] = scope["state"]
        connection = HTTPConnection(scope)
        limits: dict[str, str] = {}
        report: dict[str, Standing] = {}
        REPORT.set(report)
        try:
            state["principal"] = await admit(connection, scope["method"])
            if scope["method"] == "POST":
                await spend(connection, state["principal"], limits)
        except ServiceError as error:
            _log.info("access_refused", reason=error.code, address=address_of(connection))
            problem = replace(to_problem(error), request_id=state["request_id"])
            reply = self.replies.reply(scope["path"], problem)
            if isinstance(error, Unauthenticated):
                reply.headers["WWW-Authenticate"] = "Bearer"
            reply.headers.update(limits)
            await reply(scope, receive, send)
        else:
            await self.app(scope, receive, _adding(limits, report, send))


async def admit(connection: HTTPConnection, method: str) -> Principal:
    """Whom the request speaks for. Raises what keeps it out."""
    parts: Parts = connection.app.state.parts
    path = connection.scope["path"]
    host = connection.headers.get("host")
    secret, by_cookie = secret_of(connection)
    # A neighbour who calls us by another name may still have a token to show.
    unasked = secret is None or parts.names.include(host)
    if path == "/metrics" and unasked and _is_neighbour(connection, parts):
        parts.names.demand(host)
        return ANONYMOUS
    principal = await parts.door.admit(secret, address_of(connection), host)
    if by_cookie:
        refuse_other_sites(connection, where_unknown=method in _HARMLESS_METHODS)
    scope = scope_of(path)
    if scope is not None and scope not in principal.scopes:
        raise Forbidden(
            f"This takes an access token with the scope {scope.value}; {principal.name} has "
            f"{', '.join(sorted(each.value for each in principal.scopes)) or 'none'}."
        )
    return principal


async def spend(connection: HTTPConnection, principal: Principal, headers: dict[str, str]) -> None:
    """Count the request where the principal's are limited, and say in `headers` what is left.

    Raises `RateLimited`.
    """
    if principal.requests_per_minute is None:
        return
    parts: Parts = connection.app.state.parts
    spender = principal.id
    if spender == ANONYMOUS.id:  # nobody is told from anybody but by where they are
        spender = f"{ANONYMOUS.id}@{address_of(connection)}"
    allowance = await parts.limits.spend(spender, principal.requests_per_minute)
    headers["x-ratelimit-limit-requests"] = str(allowance.limit)
    headers["x-ratelimit-remaining-requests"] = str(allowance.num_left)
    headers["x-ratelimit-reset-requests"] = to_duration(allowance.next_seconds)
    headers["anthropic-ratelimit-requests-limit"] = str(allowance.limit)
    headers["anthropic-ratelimit-requests-remaining"] = str(allowance.num_left)
    headers["anthropic-ratelimit-requests-reset"] = to_moment(allowance.next_seconds)
    allowance.demand()


def _adding(headers: dict[str, str], report: Mapping[str, Standing], send: Send) -> Send:
    """Say with the reply what is left of the limits; `report` is filled while it is made."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start" and (headers or report):
            headers.update(to_limit_headers(report))
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return adding


def to_limit_headers(report: Mapping[str, Standing]) -> dict[str, str]:
    """The tightest limit on tokens, in the words of both vendors' clients. Prompts and answers are
    counted together, so there is nothing to say of either alone."""
    tokens = [report[name] for name in report if name != "streams"]
    if not tokens:
        return {}
    tightest = min(tokens, key=lambda standing: standing.left)
    return {
        "x-ratelimit-limit-tokens": str(tightest.limit),
        "x-ratelimit-remaining-tokens": str(tightest.left),
        "x-ratelimit-reset-tokens": to_duration(tightest.more_in_seconds),
        "anthropic-ratelimit-tokens-limit": str(tightest.limit),
        "anthropic-ratelimit-tokens-remaining": str(tightest.left),
        "anthropic-ratelimit-tokens-reset": to_moment(tightest.more_in_seconds),
    }


def to_duration(seconds: float) -> str:
    """Rounded up, as OpenAI's headers have it: `6m0s`."""
    minutes, whole_seconds = divmod(math.ceil(seconds), 60)
    hours, whole_minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{whole_minutes}m{whole_seconds}s"
    return f"{minutes}m{whole_seconds}s" if minutes else f"{whole_seconds}s"


def to_moment(seconds: float) -> str:
    """In so many seconds, as Anthropic's headers have it (RFC 3339); not earlier."""
    moment = datetime.fromtimestamp(math.ceil(time.time() + seconds), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def is_open_to_all(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


def scope_of(path: str) -> access.Scope | None:
    """What a path takes beside a valid token."""
    parent = path
    while parent:
        if parent in SCOPES:
            return SCOPES[parent]
        parent = parent.rpartition("/")[0]
    return SCOPES[""]


def secret_of(connection: HTTPConnection) -> tuple[str | None, bool]:
    """The secret that came with the request, if any, and whether a cookie carried it."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip(), False
    if "x-api-key" in connection.headers:
        return connection.headers["x-api-key"].strip(), False
    secret = connection.cookies.get(COOKIE)
    return secret, secret is not None


def address_of(connection: HTTPConnection) -> str:
    """Who is at the other end, as far as the server trusts a proxy to say so."""
    return connection.client.host if connection.client is not None else "unix"


def refuse_other_sites(connection: HTTPConnection, *, where_unknown: bool) -> None:
    """Browsers send cookies along whichever page asks; only our own may. Raises `Forbidden`.

    `SameSite=Strict` stops other sites, but not other ports and sister domains of ours.
    `where_unknown`: whether to let in who does not say what page asks, as programs don't.
    """
    fetched_by = connection.headers.get("sec-fetch-site")
    origin = connection.headers.get("origin")
    if fetched_by is not None:
        allowed = fetched_by in {"same-origin", "none"}
    elif origin is not None:  # browsers leave the other header out where there is no TLS
        allowed = origin.partition("://")[2] == connection.headers.get("host")
    else:
        allowed = where_unknown
    if not allowed:
        raise Forbidden("Only this service's own page may use the cookie; send the token instead.")


def _is_neighbour(connection: HTTPConnection, parts: Parts) -> bool:
    """Whether a program on this machine asks, and not a proxy for somebody else."""
    client = connection.client
    if client is None or parts.settings.api.unix_socket is not None:
        return False
    if any(name in connection.headers for name in _PROXY_HEADERS):
        return False
    with suppress(ValueError):
        return ipaddress.ip_address(client.host).is_loopback
    return False
