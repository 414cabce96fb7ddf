"""By which names a service that stands open may be called.

A page can make a name of its own point to 127.0.0.1 (DNS rebinding), and is then, for the browser,
a part of this service. It cannot choose what the browser says in `Host`: that is the name.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

from service.domain.errors import Forbidden

_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:\[\]]*)(:\d{0,5})?")


class OwnNames:
    """`localhost`, addresses, and what the operator lists in `allowed`; `*` there is any name."""

    def __init__(self, allowed: str) -> None:
        self._allowed = frozenset(allowed.lower().replace(",", " ").split())

    def include(self, host: str | None) -> bool:
        """Whether `host`, as a request's `Host` has it, is one of them. What names nobody is a
        program: browsers always do."""
        return not host or "*" in self._allowed or self._is_own(host)

    def demand(self, host: str | None) -> None:
        """Raises `Forbidden` where `host` is none of them."""
        if host is None or self.include(host):
            return
        raise Forbidden(
            f"Without access tokens this service answers to localhost and to addresses, not to "
            f"{host[:100]!r}; make one with `parley token create --name laptop`, or list the name "
            "in PARLEY_API__ALLOWED_HOSTS."
        )

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found["name"].removesuffix(".")
        return (
            name == "localhost"
            or name.endswith(".localhost")
            or name in self._allowed
            or is_address(name)
        )


def is_address(name: str) -> bool:
    """Whether nobody had to be asked what the name means."""
    with suppress(ValueError):
        if name.startswith("["):
            ipaddress.IPv6Address(name[1:-1])
        else:
            ipaddress.IPv4Address(name)
        return True
    return False
