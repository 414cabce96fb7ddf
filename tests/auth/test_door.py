"""Whether one has to show an access token."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.auth.door import Door, is_reachable_by_others
from service.auth.names import OwnNames
from service.auth.throttle import BURST, SECONDS_EACH, FailureThrottle
from service.auth.tokens import AccessTokens
from service.domain.access import ANONYMOUS, Scope
from service.domain.errors import Forbidden, RateLimited, StoreUnavailable, Unauthenticated
from service.store.access_tokens import SqlAccessTokens
from service.store.database import Database
from service.store.failures import SqlFailures
from tests.fakes.clock import FakeClock

HERE = "192.0.2.1"
CHAT = frozenset({Scope.CHAT})


@pytest.mark.parametrize(
    ("host", "reachable"),
    [
        ("127.0.0.1", False),
        ("127.3.2.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104  # asked about, not bound
        ("::", True),
        ("10.0.0.5", True),
        ("chat.example.org", True),
    ],
)
def test_who_can_connect_depends_on_the_address(host: str, reachable: bool) -> None:
    assert is_reachable_by_others(host, None) is reachable


def door_of(
    tokens: AccessTokens, database: Database, *, may_stand_open: bool = True, names: str = ""
) -> Door:
    throttle = FailureThrottle(SqlFailures(database))
    return Door(tokens, throttle, OwnNames(names), may_stand_open=may_stand_open)


def test_behind_a_unix_socket_there_is_a_proxy_for_others() -> None:
    assert is_reachable_by_others("127.0.0.1", Path("/run/parley/http.sock"))


async def test_the_door_stands_open_until_the_first_token(
    tokens: AccessTokens, database: Database
) -> None:
    door = door_of(tokens, database)
    assert await door.admit(None, HERE) == ANONYMOUS
    assert await door.admit("sk-anything", HERE) == ANONYMOUS
    _, secret = await tokens.create("laptop", CHAT, None)
    with pytest.raises(Unauthenticated, match="needs an access token"):
        await door.admit(None, HERE)
    assert (await door.admit(secret, HERE)).name == "laptop"
    await tokens.revoke("laptop")
    with pytest.raises(Unauthenticated, match="needs an access token"):
        await door.admit(None, HERE)


async def test_where_others_can_connect_it_never_does(
    tokens: AccessTokens, database: Database
) -> None:
    with pytest.raises(Unauthenticated):
        await door_of(tokens, database, may_stand_open=False).admit(None, HERE)


async def test_nobody_comes_in_while_nobody_can_tell(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE access_tokens")
    door = door_of(AccessTokens(SqlAccessTokens(database)), database)
    with pytest.raises(StoreUnavailable):
        await door.admit(None, HERE)


async def test_wrong_tokens_are_throttled_and_right_ones_never(
    tokens: AccessTokens, database: Database, clock: FakeClock
) -> None:
    _, secret = await tokens.create("laptop", CHAT, None)
    throttle = FailureThrottle(SqlFailures(database, clock), clock)
    door = Door(tokens, throttle, OwnNames(""), may_stand_open=True)
    for _ in range(BURST):
        with pytest.raises(Unauthenticated):
            await door.admit("parley_wrong", HERE)
    with pytest.raises(RateLimited, match="wait 6 s") as refused:
        await door.admit("parley_wrong", HERE)
    assert refused.value.retry_after_seconds == SECONDS_EACH
    assert (await door.admit(secret, HERE)).name == "laptop"
    with pytest.raises(Unauthenticated):  # whoever shows nothing has not failed
        await door.admit(None, HERE)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost.:8000", "chat.localhost:1"),
        *("127.0.0.1", "127.0.0.1:8000", "192.0.2.7:80", "[::1]", "[::1]:8000", "[fe80::1%1]:9"),
        *("chat.lan", "Chat.LAN:8000", "box.lan", "", None),
    ],
)
async def test_an_open_door_answers_to_names_that_nobody_else_can_have(
    tokens: AccessTokens, database: Database, host: str | None
) -> None:
    door = door_of(tokens, database, names="chat.lan, BOX.lan")
    assert await door.admit(None, HERE, host) == ANONYMOUS


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.test",
            "evil.test:8000",
            "localhost.evil.test",
            "evillocalhost",
            "127.0.0.1.evil.test",
        ),
        *("chat.lan.evil.test", "localhost:8000@evil.test", "[::1].evil.test", "localhost evil"),
        *("0x7f.1", "2130706433", "127.1", "[evil.test]", "a" * 500),
    ],
)
async def test_and_to_no_other(tokens: AccessTokens, database: Database, host: str) -> None:
    door = door_of(tokens, database, names="chat.lan")
    with pytest.raises(Forbidden, match="PARLEY_API__ALLOWED_HOSTS") as refused:
        await door.admit(None, HERE, host)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


async def test_with_a_token_or_the_operator_s_word_any_name_will_do(
    tokens: AccessTokens, database: Database
) -> None:
    assert await door_of(tokens, database, names="*").admit(None, HERE, "evil.test") == ANONYMOUS
    _, secret = await tokens.create("laptop", CHAT, None)
    door = door_of(tokens, database)
    assert (await door.admit(secret, HERE, "chat.example.org")).name == "laptop"
