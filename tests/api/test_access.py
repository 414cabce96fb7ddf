"""Who is let in, who is turned away, and in which words."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from structlog.testing import LogCapture

from service.api.dialects import llama_server
from service.auth.secrets import new_secret
from service.auth.throttle import BURST, SECONDS_EACH
from service.auth.tokens import AccessTokens
from service.domain.access import Scope
from service.metrics import exposition
from service.settings import ApiSettings, AuthSettings, Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import Database, open_database
from tests.api.running import connected_client, running_app
from tests.fakes.engine import FakeEngine

# The written list of what everybody may have. A new entry needs a reason in docs/security.md.
OPEN = {
    ("GET", "/"),
    ("HEAD", "/"),
    *(
        (method, path)
        for path in ("/health", "/v1/health", "/api/v1/health")
        for method in ("GET", "HEAD")
    ),
    *((method, path) for path in ("/livez", "/readyz") for method in ("GET", "HEAD")),
    *((method, "/login") for method in ("GET", "POST", "DELETE")),
    ("GET", "/static/app.js"),
    ("HEAD", "/static/app.js"),
}
CHAT = frozenset({Scope.CHAT})
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(Settings(state_dir=tmp_path))
    yield opened
    await opened.aclose()


@pytest.fixture
def tokens(database: Database) -> AccessTokens:
    return AccessTokens(SqlAccessTokens(database))


@pytest_asyncio.fixture
async def secret(tokens: AccessTokens) -> str:
    return (await tokens.create("laptop", CHAT, None))[1]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def operations(routes: list[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every method and path that the application has a route for."""
    for route in routes:
        if isinstance(route, Mount):
            yield from (("GET", f"{route.path}/app.js"), ("HEAD", f"{route.path}/app.js"))
        elif isinstance(route, (APIRoute, Route)):
            path = re.sub(r"{\w+(:path)?}", "x", prefix + route.path)
            yield from ((method, path) for method in route.methods or ())
        else:  # a router that was included whole
            yield from operations(route.original_router.routes, prefix)


def test_every_route_is_seen(app: FastAPI) -> None:
    seen = set(operations(app.routes))
    assert seen >= OPEN | {
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models/x"),
        ("POST", "/chat/stream"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
    }
    documented = {
        (method.upper(), re.sub(r"{\w+}", "x", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    assert documented <= seen


async def test_every_route_is_closed_but_for_the_written_list(app: FastAPI, secret: str) -> None:
    assert secret
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 999))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://parley.localhost"
    ) as stranger:
        for method, path in sorted(set(operations(app.routes)) - OPEN):
            reply = await stranger.request(method, path, content=b"{")
            assert reply.status_code == 401, (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                check_words(path, reply.json())
        for method, path in sorted(OPEN):
            reply = await stranger.request(method, path)
            assert reply.status_code != 401, (method, path)


def check_words(path: str, body: dict[str, Any]) -> None:
    """The refusal is in the words of the path's dialect."""
    if path.startswith("/v1/messages"):
        assert body["type"] == "error"
        assert body["error"]["type"] == "authentication_error"
    elif path in llama_server.PATHS:
        assert body["error"]["code"] == 401
    elif path.startswith("/v1/") or path == "/apply-template":
        error = body["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    else:
        assert "parley token create" in body["detail"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/nowhere", "/static", "/health/", "/x//health", "/Health", "/login/x"]
)
async def test_what_there_is_no_route_for_is_closed_too(
    client: httpx.AsyncClient, secret: str, path: str
) -> None:
    assert secret
    assert (await client.get(httpx.URL(path=path))).status_code == 401


async def test_without_a_token_in_the_store_nobody_is_asked(client: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("not-needed"), {"x-api-key": "sk-1"}):
        reply = await client.post("/v1/chat/completions", json=HELLO, headers=headers)
        assert reply.status_code == 200
    assert (await client.get("/login")).json() == {"required": False, "granted": True}


async def test_the_first_token_closes_the_door_of_a_running_service(
    client: httpx.AsyncClient, tokens: AccessTokens
) -> None:
    assert (await client.get("/sessions")).status_code == 200
    _, secret = await tokens.create("laptop", CHAT, None)
    assert (await client.get("/sessions")).status_code == 401
    assert (await client.get("/sessions", headers=bearer(secret))).status_code == 200


@pytest.mark.parametrize("way", ["bearer", "x-api-key", "cookie"])
async def test_a_token_opens_until_it_is_revoked(
    client: httpx.AsyncClient, tokens: AccessTokens, secret: str, way: str
) -> None:
    headers = {
        "bearer": {"Authorization": f"bEARER  {secret}"},
        "x-api-key": {"X-Api-Key": secret},
        "cookie": {"Cookie": f"a=b; parley_access={secret}", "Origin": "http://parley.localhost"},
    }[way]
    reply = await client.post("/v1/chat/completions", json=HELLO, headers=headers)
    assert reply.status_code == 200
    await tokens.revoke("laptop")
    reply = await client.post("/v1/chat/completions", json=HELLO, headers=headers)
    assert (reply.status_code, reply.json()["error"]["message"]) == (
        401,
        "This access token was revoked.",
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": ""},
        {"x-api-key": "\u00fc".encode().decode("latin-1")},
        {"Cookie": "parley_access="},
    ],
)
async def test_anything_else_does_not(
    client: httpx.AsyncClient, secret: str, headers: dict[str, str]
) -> None:
    assert secret
    raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    assert (await client.get("/sessions", headers=raw)).status_code == 401


@pytest.mark.parametrize("api", [ApiSettings(host="0.0.0.0"), ApiSettings(unix_socket=Path("/s"))])  # noqa: S104
@pytest.mark.parametrize(("allowed", "status"), [(False, 401), (True, 200)])
async def test_for_others_the_door_is_open_only_where_the_operator_said_so(
    engine: FakeEngine, tmp_path: Path, api: ApiSettings, allowed: bool, status: int
) -> None:
    auth = AuthSettings(allow_anonymous=allowed)
    async with (
        running_app(engine, tmp_path, api, auth) as app,
        connected_client(app) as client,
    ):
        assert (await client.get("/sessions")).status_code == status


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/sessions", "chat"),
        ("/v1/chat/completions", "chat"),
        ("/v1/admin/tokens", "admin"),
        ("/v1/embeddings", "embed"),
    ],
)
async def test_a_scope_opens_its_own_paths_only(
    client: httpx.AsyncClient, tokens: AccessTokens, path: str, scope: str
) -> None:
    for held in Scope:
        _, secret = await tokens.create(held.value, frozenset({held}), None)
        reply = await client.post(path, headers=bearer(secret), content=b"{")
        assert (reply.status_code == 403) is (held.value != scope), held
        if reply.status_code == 403:
            assert f"the scope {scope}; {held.value} has {held.value}." in reply.text
        assert (await client.get("/v1/models", headers=bearer(secret))).status_code == 200


METRICS_PEERS = [
    (("127.0.0.1", 999), {}, 200),
    (("::1", 999), {}, 200),
    (("192.0.2.7", 999), {}, 401),
    (("127.0.0.1", 999), {"X-Forwarded-For": "127.0.0.1"}, 401),
    (("127.0.0.1", 999), {"Forwarded": "for=127.0.0.1"}, 401),
    (("127.0.0.1", 999), {"X-Real-IP": "127.0.0.1"}, 401),
]


@pytest.mark.parametrize(("peer", "headers", "status"), METRICS_PEERS)
async def test_metrics_are_for_this_machine(
    app: FastAPI, secret: str, peer: tuple[str, int], headers: dict[str, str], status: int
) -> None:
    assert secret
    transport = httpx.ASGITransport(app, client=peer)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://parley.localhost"
    ) as scraper:
        assert (await scraper.get("/metrics", headers=headers)).status_code == status


async def test_pages_of_other_names_find_nothing_on_this_machine(
    app: FastAPI, tokens: AccessTokens
) -> None:
    evil, own = {"Host": "evil.test:8000"}, {"Host": "127.0.0.1:8000"}
    async with connected_client(app) as client:
        for path in ("/sessions", "/v1/models", "/metrics", "/docs"):
            reply = await client.get(path, headers=evil)
            assert reply.status_code == 403
            assert "PARLEY_API__ALLOWED_HOSTS" in reply.text
            assert (await client.get(path, headers=own)).status_code == 200
        reply = await client.post("/v1/messages", json=HELLO, headers=evil)
        assert (reply.status_code, reply.json()["error"]["type"]) == (403, "permission_error")
        _, secret = await tokens.create("laptop", CHAT, None)
        assert (await client.get("/metrics", headers=evil)).status_code == 403
        reply = await client.get("/sessions", headers=evil | bearer(secret))
        assert reply.status_code == 200


@pytest.mark.parametrize(
    ("api", "auth"),
    [
        (ApiSettings(allowed_hosts="chat.lan"), AuthSettings()),
        (ApiSettings(allowed_hosts="*"), AuthSettings()),
        (ApiSettings(), AuthSettings(allow_anonymous=True)),
        (ApiSettings(host="0.0.0.0"), AuthSettings(allow_anonymous=True)),  # noqa: S104
        (ApiSettings(unix_socket=Path("/s")), AuthSettings(allow_anonymous=True)),
    ],
)
async def test_names_that_the_operator_means_are_answered(
    engine: FakeEngine, tmp_path: Path, api: ApiSettings, auth: AuthSettings
) -> None:
    async with running_app(engine, tmp_path, api, auth) as app, connected_client(app) as client:
        reply = await client.get("/sessions", headers={"Host": "chat.lan:8000"})
        assert reply.status_code == 200


async def test_behind_a_proxy_metrics_take_a_token_with_their_scope(
    engine: FakeEngine, tmp_path: Path, tokens: AccessTokens
) -> None:
    _, chat = await tokens.create("chat", CHAT, None)
    _, metrics = await tokens.create("prometheus", frozenset({Scope.METRICS}), None)
    api = ApiSettings(unix_socket=tmp_path / "http.sock")
    async with running_app(engine, tmp_path, api) as app, connected_client(app) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=bearer(chat))).status_code == 403
        assert (await client.get("/metrics", headers=bearer(metrics))).status_code == 200


async def test_a_neighbour_who_calls_us_by_another_name_may_show_a_token_for_metrics(
    app: FastAPI, tokens: AccessTokens
) -> None:
    _, chat = await tokens.create("chat", CHAT, None)
    _, metrics = await tokens.create("prometheus", frozenset({Scope.METRICS}), None)
    other = {"Host": "parley:8000"}
    async with connected_client(app) as client:
        for shown, status in (({}, 403), (bearer(chat), 403), (bearer(metrics), 200)):
            reply = await client.get("/metrics", headers=other | shown)
            assert reply.status_code == status, reply.text
        unasked = await client.get("/metrics", headers={"Host": "127.0.0.1:8000"} | bearer(chat))
        assert unasked.status_code == 200


async def test_pasting_a_token_sets_a_cookie_that_only_our_page_can_use(
    client: httpx.AsyncClient, secret: str
) -> None:
    assert (await client.get("/login")).json() == {"required": True, "granted": False}
    reply = await client.post("/login", json={"access_token": f" {secret}\n"})
    assert reply.status_code == 204
    flags = reply.headers["set-cookie"].lower()
    assert "httponly" in flags
    assert "samesite=strict" in flags
    assert "path=/" in flags
    assert "secure" not in flags
    assert (await client.get("/login")).json() == {"required": True, "granted": True}
    assert (await client.get("/sessions")).status_code == 200
    assert (await client.delete("/login")).status_code == 204
    assert (await client.get("/sessions")).status_code == 401


async def test_behind_tls_the_cookie_stays_there(client: httpx.AsyncClient, secret: str) -> None:
    reply = await client.post("https://parley.localhost/login", json={"access_token": secret})
    assert "; Secure" in reply.headers["set-cookie"]


async def test_a_wrong_token_sets_no_cookie(client: httpx.AsyncClient, secret: str) -> None:
    reply = await client.post("/login", json={"access_token": secret[:-1]})
    assert (reply.status_code, "set-cookie" in reply.headers) == (401, False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://parley.localhost"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://parley.localhost"}, 200),
        ({"Origin": "http://parley.localhost:8001"}, 403),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
async def test_a_cookie_works_for_our_own_page_only(
    client: httpx.AsyncClient, secret: str, headers: dict[str, str], status: int
) -> None:
    cookie = {"Cookie": f"parley_access={secret}"}
    reply = await client.post("/reset", headers=cookie | headers)
    assert reply.status_code == status
    assert (await client.post("/reset", headers=bearer(secret) | headers)).status_code == 200


async def test_another_site_cannot_log_its_visitors_in(
    client: httpx.AsyncClient, secret: str
) -> None:
    body = {"access_token": secret}
    for headers in ({"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
        reply = await client.post("/login", json=body, headers=headers)
        assert (reply.status_code, "set-cookie" in reply.headers) == (403, False)


async def test_wrong_tokens_are_throttled_with_a_time_to_come_back(
    client: httpx.AsyncClient, secret: str
) -> None:
    for _ in range(BURST):
        assert (await client.get("/sessions", headers=bearer(new_secret()))).status_code == 401
    # Where so many took seconds, some more are let through.
    for _ in range(9 * BURST):
        reply = await client.get("/v1/models", headers=bearer(new_secret()))
        if reply.status_code != 401:
            break
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["retry-after"]) <= SECONDS_EACH
    assert reply.json()["error"]["code"] == "rate_limit_exceeded"
    assert (await client.get("/sessions", headers=bearer(secret))).status_code == 200


async def test_what_belongs_to_one_token_does_not_exist_for_another(
    client: httpx.AsyncClient, tokens: AccessTokens, engine: FakeEngine
) -> None:
    mine, yours = [bearer((await tokens.create(n, CHAT, None))[1]) for n in ("mine", "yours")]
    reply = await client.post("/chat", json={"message": "Hello"}, headers=mine)
    session = {"session_id": reply.json()["session_id"]}
    assert (await client.get("/sessions", headers=yours)).json()["sessions"] == []
    known = await client.post("/chat/clear", json=session, headers=yours)
    none = {"session_id": "x" * len(session["session_id"])}
    unknown = await client.post("/chat/clear", json=none, headers=yours)
    assert known.status_code == unknown.status_code == 404
    assert known.text.replace(session["session_id"], none["session_id"]) == unknown.text
    assert (await client.get("/sessions", headers=mine)).json()["count"] == 1
    await client.post("/chat", json={"message": "Hello"}, headers=yours)
    keys = [job.cache_key for job in engine.jobs]
    assert keys[0] != keys[1]


async def test_a_rotated_token_finds_its_conversations_again(
    client: httpx.AsyncClient, tokens: AccessTokens, secret: str
) -> None:
    await client.post("/chat", json={"message": "Hello"}, headers=bearer(secret))
    _, rotated = await tokens.rotate("laptop")
    assert (await client.get("/sessions", headers=bearer(rotated))).json()["count"] == 1


async def test_a_token_is_never_logged_or_told_back(
    client: httpx.AsyncClient, tokens: AccessTokens, caplog: pytest.LogCaptureFixture
) -> None:
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    try:
        with caplog.at_level(logging.DEBUG):
            said = await use_and_misuse(client, tokens)
    finally:
        structlog.configure(**before)
    assert len(said) == 8
    assert {"access_refused", "request_finished"} <= {entry["event"] for entry in capture.entries}
    ours = [record.getMessage() for record in caplog.records if record.name != "httpx"]
    shown = repr(capture.entries) + repr(ours) + exposition().decode()
    for secret, text in said:
        assert secret[13:] not in shown
        assert secret[13:] not in text


async def use_and_misuse(client: httpx.AsyncClient, tokens: AccessTokens) -> list[tuple[str, str]]:
    """Show good, unknown and mistyped tokens in every way; secrets, and what was answered."""
    _, good = await tokens.create("laptop", CHAT, None)
    said = []
    for secret in (good, new_secret(), good[:-1] + "-", good + "x"):
        reply = await client.post("/v1/chat/completions", json=HELLO, headers=bearer(secret))
        said.append((secret, reply.text))
        reply = await client.post(f"/login?{secret}", json={"access_token": secret})
        said.append((secret, reply.text))
    return said


async def test_a_limited_token_is_told_what_is_left_and_when_to_come_back(
    client: httpx.AsyncClient, tokens: AccessTokens, secret: str
) -> None:
    _, limited = await tokens.create("guests", CHAT, None, 2)
    for left in ("1", "0"):
        reply = await client.post("/v1/chat/completions", json=HELLO, headers=bearer(limited))
        assert reply.status_code == 200
        assert reply.headers["x-ratelimit-limit-requests"] == "2"
        assert reply.headers["x-ratelimit-remaining-requests"] == left
    reply = await client.post("/v1/chat/completions", json=HELLO, headers=bearer(limited))
    assert reply.status_code == 429
    assert reply.json()["error"]["type"] == "rate_limit_error"
    assert 50 <= int(reply.headers["retry-after"]) <= 60
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert reply.headers["x-ratelimit-reset-requests"] in {
        "1m0s",
        *(f"{n}s" for n in range(50, 60)),
    }
    renewed = datetime.fromisoformat(reply.headers["anthropic-ratelimit-requests-reset"])
    assert renewed > datetime.now(UTC) - timedelta(minutes=1)
    assert (await client.get("/v1/models", headers=bearer(limited))).status_code == 200
    reply = await client.post("/v1/chat/completions", json=HELLO, headers=bearer(secret))
    assert reply.status_code == 200
    assert "x-ratelimit-limit-requests" not in reply.headers


async def test_a_stale_cookie_is_asked_for_again_however_often_it_was_shown(
    client: httpx.AsyncClient, secret: str
) -> None:
    assert secret
    cookie = {"Cookie": f"parley_access={new_secret()}"}
    for _ in range(BURST + 2):
        reply = await client.get("/login", headers=cookie)
        assert (reply.status_code, reply.json()) == (200, {"required": True, "granted": False})


@pytest.mark.parametrize("path", ["/", "/chat"])
async def test_web_sockets_are_closed(app: FastAPI, path: str) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert [(each["type"], each["code"]) for each in sent] == [("websocket.close", 1008)]
