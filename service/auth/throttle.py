"""How often one address may show a wrong access token."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from service.domain.errors import StoreUnavailable
from service.log import get_logger

BURST = 10
SECONDS_EACH = 6.0
MAX_ADDRESSES = 10_000

_log = get_logger(__name__)


class FailureStore(Protocol):
    """Keeps failures, of all workers. Raises `StoreUnavailable`."""

    async def fail(self, network: str, seconds_each: float, burst: int) -> float:
        """Note a failure, unless it came too early; how many seconds too early, 0 if it did not."""
        ...


class FailureThrottle:
    """After `BURST` failures, one each `SECONDS_EACH` seconds: in all workers together, and across
    restarts.

    Nobody guesses 256 bits. This keeps the guessing from costing anything, and what is guessed
    from being told apart. Only failures count, and right tokens are let in whatever others
    behind the same address did: a throttle that locks people out would be a weapon.
    """

    def __init__(self, store: FailureStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        # Until when the store would refuse; whoever goes on before then does not make it work.
        self._refused_until: OrderedDict[str, float] = OrderedDict()

    async def fail(self, address: str) -> float:
        """Note a failure. How many seconds too early it came; 0 if it was not."""
        now, whose = self._clock(), network_of(address)
        early = self._refused_until.get(whose, now) - now
        if early > 0:
            return early
        try:
            early = await self._store.fail(whose, SECONDS_EACH, BURST)
        except StoreUnavailable as error:  # nobody came in, and that is what matters
            _log.warning("failure_not_counted", reason=error.message)
            return 0.0
        if early > 0:
            self._refused_until[whose] = now + early
            self._refused_until.move_to_end(whose)
            while len(self._refused_until) > MAX_ADDRESSES:
                self._refused_until.popitem(last=False)
        return early


def network_of(address: str) -> str:
    """Whose address it is, as far as one can tell: with IPv6, everybody has 2⁶⁴ of them."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return address
