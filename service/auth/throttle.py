"""How often one address may show a wrong access token."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

BURST = 10
SECONDS_EACH = 6.0
MAX_ADDRESSES = 10_000


class FailureThrottle:
    """After `BURST` failures, one each `SECONDS_EACH` seconds; in one worker's memory.

    Nobody guesses 256 bits. This keeps the guessing from costing anything, and what is guessed
    from being told apart. Only failures count, and right tokens are let in whatever others
    behind the same address did: a throttle that locks people out would be a weapon.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_until: OrderedDict[str, float] = OrderedDict()  # as GCRA has it; oldest first

    def fail(self, address: str) -> float:
        """Note a failure. How many seconds too early it came; 0 if it was not."""
        now, whose = self._clock(), network_of(address)
        paid_until = max(now, self._paid_until.get(whose, now))
        too_early = paid_until + SECONDS_EACH - (now + BURST * SECONDS_EACH)
        if too_early > 0:
            return too_early
        self._paid_until[whose] = paid_until + SECONDS_EACH
        self._paid_until.move_to_end(whose)
        while len(self._paid_until) > MAX_ADDRESSES:
            self._paid_until.popitem(last=False)
        return 0.0


def network_of(address: str) -> str:
    """Whose address it is, as far as one can tell: with IPv6, everybody has 2⁶⁴ of them."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return address
