"""Whether one has to show an access token."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.auth.door import Door, is_reachable_by_others
from service.auth.throttle import BURST, SECONDS_EACH
from service.auth.tokens import AccessTokens
from service.domain.access import ANONYMOUS, Scope
from service.domain.errors import RateLimited, StoreUnavailable, Unauthenticated
from service.store.access_tokens import SqlAccessTokens
from service.store.database import Database

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


def test_behind_a_unix_socket_there_is_a_proxy_for_others() -> None:
    assert is_reachable_by_others("127.0.0.1", Path("/run/parley/http.sock"))


async def test_the_door_stands_open_until_the_first_token(tokens: AccessTokens) -> None:
    door = Door(tokens, may_stand_open=True)
    assert await door.admit(None, HERE) == ANONYMOUS
    assert await door.admit("sk-anything", HERE) == ANONYMOUS
    _, secret = await tokens.create("laptop", CHAT, None)
    with pytest.raises(Unauthenticated, match="needs an access token"):
        await door.admit(None, HERE)
    assert (await door.admit(secret, HERE)).name == "laptop"
    await tokens.revoke("laptop")
    with pytest.raises(Unauthenticated, match="needs an access token"):
        await door.admit(None, HERE)


async def test_where_others_can_connect_it_never_does(tokens: AccessTokens) -> None:
    with pytest.raises(Unauthenticated):
        await Door(tokens, may_stand_open=False).admit(None, HERE)


async def test_nobody_comes_in_while_nobody_can_tell(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE access_tokens")
    door = Door(AccessTokens(SqlAccessTokens(database)), may_stand_open=True)
    with pytest.raises(StoreUnavailable):
        await door.admit(None, HERE)


async def test_wrong_tokens_are_throttled_and_right_ones_never(tokens: AccessTokens) -> None:
    _, secret = await tokens.create("laptop", CHAT, None)
    door = Door(tokens, may_stand_open=True)
    for _ in range(BURST):
        with pytest.raises(Unauthenticated):
            await door.admit("parley_wrong", HERE)
    with pytest.raises(RateLimited, match="wait 6 s") as refused:
        await door.admit("parley_wrong", HERE)
    assert refused.value.retry_after_seconds == pytest.approx(SECONDS_EACH, abs=1)
    assert (await door.admit(secret, HERE)).name == "laptop"
    with pytest.raises(Unauthenticated):  # whoever shows nothing has not failed
        await door.admit(None, HERE)
