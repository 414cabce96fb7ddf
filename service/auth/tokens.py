"""Access tokens: handed out, replaced, taken back, and asked for.

Nothing is cached: a token that is revoked opens nothing from the next request on, in every
worker.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from service.auth.secrets import BRAND, digest_of, is_well_formed, new_secret, prefix_of
from service.domain.access import UNLIMITED, AccessToken, Act, Limits, Principal, Scope
from service.domain.errors import InvalidRequest, StoreUnavailable, Unauthenticated
from service.log import get_logger

LAST_USE_SECONDS = 60.0  # how exactly a last use is known
MAX_NAME = 64

_log = get_logger(__name__)


class TokenStore(Protocol):
    """Keeps access tokens, revoked ones too. All methods raise `StoreUnavailable`."""

    async def any_exist(self) -> bool: ...

    async def with_digest(self, digest: str) -> AccessToken | None: ...

    async def list_all(self) -> list[AccessToken]:
        """All of them, oldest first."""
        ...

    async def add(self, token: AccessToken) -> bool:
        """Keep a new one; False where an unrevoked one has its name."""
        ...

    async def replace_secret(self, token: AccessToken) -> bool:
        """Change digest, prefix and times of the unrevoked one with this id; False without one."""
        ...

    async def revoke(self, token_id: str, now: float) -> bool:
        """False where it has been revoked already."""
        ...

    async def note_use(self, token_id: str, now: float) -> None: ...

    async def note_act(self, at: float, actor: str, act: str, about: str) -> None:
        """Keep an act of administration."""
        ...

    async def acts(self, most: int) -> list[Act]:
        """The latest acts, the newest first."""
        ...


class AccessTokens:
    """Who may come in. `clock` gives seconds since 1970; `actor` is who administers here."""

    def __init__(
        self,
        store: TokenStore,
        clock: Callable[[], float] = time.time,
        actor: str = "operator",
    ) -> None:
        self._store = store
        self._clock = clock
        self._actor = actor
        self._known_to_exist = False

    async def any_exist(self) -> bool:
        """Whether there has ever been one: none is ever deleted, so this never turns back."""
        if not self._known_to_exist:
            self._known_to_exist = await self._store.any_exist()
        return self._known_to_exist

    async def principal_of(self, secret: str) -> Principal:
        """Whom `secret` speaks for. Raises `Unauthenticated`, and `StoreUnavailable`."""
        if not is_well_formed(secret):
            raise Unauthenticated(
                f"This is not an access token of this service, or not all of it: they begin with "
                f"{BRAND} and end in a checksum, which is wrong here."
            )
        digest = digest_of(secret)
        token = await self._store.with_digest(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            raise Unauthenticated("This access token is unknown; it may have been replaced.")
        now = self._clock()
        if not token.is_valid(now):
            word = "has expired" if token.revoked_at is None else "was revoked"
            raise Unauthenticated(f"This access token {word}.")
        await self._note_use(token, now)
        return token.to_principal()

    async def create(
        self,
        name: str,
        scopes: frozenset[Scope],
        lifetime_seconds: float | None,
        requests_per_minute: int | None = None,
        limits: Limits = UNLIMITED,
    ) -> tuple[AccessToken, str]:
        """A new token, and its secret, which nobody can read again. Raises `InvalidRequest`."""
        _check_name(name)
        secret, now = new_secret(), self._clock()
        token = AccessToken(
            id=secrets.token_hex(8),
            name=name,
            prefix=prefix_of(secret),
            digest=digest_of(secret),
            scopes=scopes,
            issued_at=now,
            expires_at=None if lifetime_seconds is None else now + lifetime_seconds,
            requests_per_minute=requests_per_minute,
            limits=limits,
        )
        if not await self._store.add(token):
            raise InvalidRequest(
                f"There is an access token named {name} already; choose another name, or "
                "replace or revoke that one.",
                param="name",
            )
        await self.note("create", token.name)
        return token, secret

    async def acts(self, most: int = 100) -> list[Act]:
        """What was done to access tokens and models, the newest first."""
        return await self._store.acts(most)

    def by(self, actor: str) -> AccessTokens:
        """The same tokens, administered by `actor`."""
        return AccessTokens(self._store, self._clock, actor)

    async def list_all(self) -> list[AccessToken]:
        return await self._store.list_all()

    async def rotate(self, named: str) -> tuple[AccessToken, str]:
        """Replace the secret; what belongs to the token stays, and it lives as long again.

        The old secret opens nothing from now on. Raises `InvalidRequest`.
        """
        token = await self._find(named)
        secret, now = new_secret(), self._clock()
        lifetime = None if token.expires_at is None else token.expires_at - token.issued_at
        rotated = replace(
            token,
            prefix=prefix_of(secret),
            digest=digest_of(secret),
            issued_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            last_used_at=None,
        )
        if not await self._store.replace_secret(rotated):
            raise _unknown(named)
        await self.note("rotate", rotated.name)
        return rotated, secret

    async def revoke(self, named: str) -> AccessToken:
        """End a token for good, wherever it is used. Raises `InvalidRequest`."""
        token, now = await self._find(named), self._clock()
        if not await self._store.revoke(token.id, now):
            raise _unknown(named)
        await self.note("revoke", token.name)
        return replace(token, revoked_at=now)

    async def note(self, act: str, about: str) -> None:
        """Keep an act of administration. One that cannot be noted has been done all the same; then
        the log says so."""
        try:
            await self._store.note_act(self._clock(), self._actor, act, about)
        except StoreUnavailable as error:
            _log.warning("act_not_noted", act=act, about=about, reason=error.message)

    async def _find(self, named: str) -> AccessToken:
        """The one unrevoked token with this name, this beginning, or this secret."""
        usable = [token for token in await self._store.list_all() if token.revoked_at is None]
        digest = digest_of(named)
        exact = [token for token in usable if named == token.name or digest == token.digest]
        if exact:
            return exact[0]
        if named.startswith(BRAND) and len(named) > len(BRAND):
            by_prefix = [token for token in usable if token.prefix.startswith(named)]
            if len(by_prefix) > 1:
                names = ", ".join(token.name for token in by_prefix)
                raise InvalidRequest(f"{named} is the beginning of several: {names}; name one.")
            if by_prefix:
                return by_prefix[0]
        raise _unknown(named)

    async def _note_use(self, token: AccessToken, now: float) -> None:
        last = token.last_used_at
        if last is not None and 0 <= now - last < LAST_USE_SECONDS:
            return
        try:
            await self._store.note_use(token.id, now)
        except StoreUnavailable as error:  # a full disk keeps nobody out who may come in
            _log.warning("last_use_lost", access_token=token.prefix, reason=error.message)


def _unknown(named: str) -> InvalidRequest:
    # Somebody may paste the whole secret here; an error is no place for it.
    shown = prefix_of(named) + "…" if is_well_formed(named) else named[:MAX_NAME]
    return InvalidRequest(
        f"No usable access token is named {shown} or begins so; `parley token list` shows them."
    )


def _check_name(name: str) -> None:
    sane = name.isprintable() and name == name.strip() and 0 < len(name) <= MAX_NAME
    if not sane or name.startswith(BRAND):
        raise InvalidRequest(
            f"The name {name[:MAX_NAME]!r} is not accepted: 1 to {MAX_NAME} printable characters, "
            f"not beginning with {BRAND}.",
            param="name",
        )
