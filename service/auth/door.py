"""Who is let in, and who has to show an access token for it."""

from __future__ import annotations

import ipaddress
import math
from contextlib import suppress
from pathlib import Path

from service import metrics
from service.auth.names import OwnNames
from service.auth.throttle import FailureThrottle
from service.auth.tokens import AccessTokens
from service.domain.access import ANONYMOUS, Principal
from service.domain.errors import RateLimited, Unauthenticated


def is_reachable_by_others(host: str, unix_socket: Path | None) -> bool:
    """Whether others than this machine's users can connect.

    A unix socket stands behind a proxy, which is there to let others in.
    """
    if unix_socket is not None:
        return True
    if host == "localhost":
        return False
    with suppress(ValueError):
        return not ipaddress.ip_address(host).is_loopback
    return True


class Door:
    """Open to everybody only as long as there has never been an access token, and then only
    where `may_stand_open`: nobody else can connect, or the operator wants it so. `stranger` is
    whom everybody speaks for then, and `names` what they must call the service."""

    def __init__(
        self,
        tokens: AccessTokens,
        throttle: FailureThrottle,
        names: OwnNames,
        *,
        may_stand_open: bool,
        stranger: Principal = ANONYMOUS,
    ) -> None:
        self._tokens = tokens
        self._throttle = throttle
        self._names = names
        self._may_stand_open = may_stand_open
        self._stranger = stranger

    async def is_open(self) -> bool:
        """Raises `StoreUnavailable`: where nobody can tell, nobody comes in."""
        return self._may_stand_open and not await self._tokens.any_exist()

    async def admit(self, secret: str | None, address: str, host: str | None = None) -> Principal:
        """Whom a request with this secret, from this address, to this host, speaks for.

        Raises `Unauthenticated`, `RateLimited` instead where that happens too often, `Forbidden`
        where the door is open and the host not one of ours, and `StoreUnavailable`.
        """
        if await self.is_open():
            self._names.demand(host)
            return self._stranger
        if secret is None:
            raise Unauthenticated(
                "This needs an access token, as `Authorization: Bearer parley_…` or `x-api-key`; "
                "the operator makes one with `parley token create --name laptop`."
            )
        try:
            return await self._tokens.principal_of(secret)
        except Unauthenticated as error:
            seconds = await self._throttle.fail(address)
            if seconds > 0:
                metrics.RATE_LIMITED.labels("wrong_access_tokens").inc()
                raise RateLimited(
                    "Too many wrong access tokens came from this address; wait "
                    f"{math.ceil(seconds)} s before another one.",
                    retry_after_seconds=seconds,
                ) from error
            raise
