"""Access tokens, from the first use to the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.auth.secrets import new_secret
from service.auth.tokens import LAST_USE_SECONDS, AccessTokens
from service.domain.access import AccessToken, Scope
from service.domain.errors import InvalidRequest, StoreUnavailable, Unauthenticated
from service.settings import Settings
from service.store.access_tokens import SqlAccessTokens
from service.store.database import open_database
from tests.fakes.clock import FakeClock

CHAT = frozenset({Scope.CHAT})


def files_in(folder: Path) -> list[tuple[str, bytes]]:
    return [(file.name, file.read_bytes()) for file in folder.iterdir()]


async def test_a_token_says_who_it_speaks_for_and_what_it_opens(tokens: AccessTokens) -> None:
    made, secret = await tokens.create("laptop", CHAT | {Scope.EMBED}, None)
    principal = await tokens.principal_of(secret)
    assert (principal.id, principal.name) == (made.id, "laptop")
    assert principal.scopes == CHAT | {Scope.EMBED}


async def test_whether_there_are_any_counts_those_that_have_ended(tokens: AccessTokens) -> None:
    assert await tokens.any_exist() is False
    await tokens.create("laptop", CHAT, None)
    await tokens.revoke("laptop")
    assert await tokens.any_exist() is True


async def test_a_typo_is_told_apart_from_a_stranger(tokens: AccessTokens) -> None:
    _, secret = await tokens.create("laptop", CHAT, None)
    with pytest.raises(Unauthenticated, match="not all of it"):
        await tokens.principal_of(secret[:-1])
    with pytest.raises(Unauthenticated, match="is unknown"):
        await tokens.principal_of(new_secret())


async def test_a_token_expires_to_the_second(tokens: AccessTokens, clock: FakeClock) -> None:
    _, secret = await tokens.create("laptop", CHAT, 60)
    clock.now += 59.9
    await tokens.principal_of(secret)
    clock.now += 0.1
    with pytest.raises(Unauthenticated, match="has expired"):
        await tokens.principal_of(secret)


async def test_a_revoked_token_opens_nothing_in_any_worker(
    tokens: AccessTokens, tmp_path: Path
) -> None:
    _, secret = await tokens.create("laptop", CHAT, None)
    elsewhere = await open_database(Settings(state_dir=tmp_path))
    other_worker = AccessTokens(SqlAccessTokens(elsewhere), lambda: 1_800_000_000.0)
    await other_worker.principal_of(secret)
    await tokens.revoke("laptop")
    with pytest.raises(Unauthenticated, match="was revoked"):
        await other_worker.principal_of(secret)
    await elsewhere.aclose()


async def test_a_rotated_token_stays_the_same_principal(
    tokens: AccessTokens, clock: FakeClock
) -> None:
    made, old = await tokens.create("laptop", CHAT, 100)
    clock.now += 50
    rotated, new = await tokens.rotate("laptop")
    assert (await tokens.principal_of(new)).id == made.id
    assert rotated.expires_at == clock.now + 100
    with pytest.raises(Unauthenticated, match="is unknown"):
        await tokens.principal_of(old)


async def test_the_last_use_is_written_at_most_once_a_minute(
    tokens: AccessTokens, clock: FakeClock
) -> None:
    async def last_use() -> float | None:
        return (await tokens.list_all())[0].last_used_at

    _, secret = await tokens.create("laptop", CHAT, None)
    assert await last_use() is None
    first = clock.now
    for seconds in (0, 1, LAST_USE_SECONDS - 2):
        clock.now += seconds
        await tokens.principal_of(secret)
        assert await last_use() == first
    clock.now += 1
    await tokens.principal_of(secret)
    assert await last_use() == clock.now


async def test_a_disk_that_takes_no_more_keeps_nobody_out(tokens: AccessTokens) -> None:
    class Full(SqlAccessTokens):
        def __init__(self, kept: AccessToken) -> None:
            self.kept = kept

        async def with_digest(self, digest: str) -> AccessToken | None:
            return self.kept

        async def note_use(self, token_id: str, now: float) -> None:
            raise StoreUnavailable("The disk is full.")

    made, secret = await tokens.create("laptop", CHAT, None)
    assert (await AccessTokens(Full(made)).principal_of(secret)).id == made.id


async def test_a_name_is_taken_until_it_is_revoked(tokens: AccessTokens) -> None:
    first, _ = await tokens.create("laptop", CHAT, None)
    with pytest.raises(InvalidRequest, match="named laptop already"):
        await tokens.create("laptop", CHAT, None)
    await tokens.revoke("laptop")
    second, _ = await tokens.create("laptop", CHAT, None)
    assert second.id != first.id


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 65, "parley_abc"])
async def test_a_name_has_to_be_one(tokens: AccessTokens, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is not accepted"):
        await tokens.create(name, CHAT, None)


async def test_a_token_is_found_by_its_beginning_or_the_whole_secret(tokens: AccessTokens) -> None:
    a, _ = await tokens.create("a", CHAT, None)
    _, secret = await tokens.create("b", CHAT, None)
    assert (await tokens.revoke(a.prefix[:10])).name == "a"
    assert (await tokens.revoke(secret)).name == "b"
    with pytest.raises(InvalidRequest) as refused:
        await tokens.revoke(secret)
    assert secret not in refused.value.message


async def test_an_unclear_beginning_changes_nothing(tokens: AccessTokens) -> None:
    for number in range(63):  # of the 62 that there can be, two begin alike
        await tokens.create(f"t{number}", CHAT, None)
    beginnings = [token.prefix[:8] for token in await tokens.list_all()]
    twice = next(each for each in beginnings if beginnings.count(each) > 1)
    with pytest.raises(InvalidRequest, match="the beginning of several"):
        await tokens.revoke(twice)
    assert all(token.revoked_at is None for token in await tokens.list_all())


async def test_the_file_holds_no_secret(tokens: AccessTokens, tmp_path: Path) -> None:
    _, secret = await tokens.create("laptop", CHAT, None)
    await tokens.principal_of(secret)
    hidden = secret.removeprefix("parley_")[6:].encode()
    assert [name for name, data in files_in(tmp_path) if hidden in data] == []
