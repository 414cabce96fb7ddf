"""Who is asking, what proves it, and what it opens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What an access token opens. None implies another."""

    CHAT = "chat"
    EMBED = "embed"
    MODELS_SWITCH = "models:switch"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request speaks for. Everything that is kept or cached belongs to one.

    `requests_per_minute` None: as many as there is room for.
    """

    id: str
    name: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    requests_per_minute: int | None = None


ANONYMOUS = Principal(id="anonymous", name="anonymous")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is kept of an access token; times in seconds since 1970.

    Never the secret: its SHA-256 (`digest`, in hex), and its beginning (`prefix`) for people.
    `id` is the principal's, and stays when the secret is replaced.
    """

    id: str
    name: str
    prefix: str
    digest: str
    scopes: frozenset[Scope]
    issued_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
    requests_per_minute: int | None = None

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_principal(self) -> Principal:
        return Principal(self.id, self.name, self.scopes, self.requests_per_minute)
