"""Who is asking, what proves it, and what it opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.domain.errors import InvalidRequest


class Scope(StrEnum):
    """What an access token opens. None implies another."""

    CHAT = "chat"
    EMBED = "embed"
    MODELS_SWITCH = "models:switch"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a principal may spend; None is as much as there is.

    Tokens are those of prompts and answers together. `streams` are answers at once. Days and
    months are those of UTC. `weight` is the share of a busy engine, 1 being everybody's. `models`,
    where there are any, are the only ones that may answer. Raises `InvalidRequest`.
    """

    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    streams: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    weight: float = 1.0
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tokens_per_minute", "tokens_per_day", "tokens_per_month", "streams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidRequest(f"{name} is {value}; it must be at least 1.", param=name)
        if not 0.01 <= self.weight <= 100:
            raise InvalidRequest(
                f"weight is {self.weight:g}; it must be between 0.01 and 100.", param="weight"
            )

    @property
    def spends(self) -> bool:
        """Whether answers have to be counted before they begin."""
        counted = (self.tokens_per_minute, self.tokens_per_day, self.tokens_per_month, self.streams)
        return any(limit is not None for limit in counted)


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Standing:
    """A limit on tokens or answers, what is left of it, and when there will be more."""

    limit: int
    left: int
    more_in_seconds: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What limits say of a need: `tokens` are set aside under `key`, or too few are left (None),
    and enough in `wait_seconds`. `standings` are those of each limit before that, by its name."""

    key: int | None
    tokens: int
    standings: Mapping[str, Standing]
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Need:
    """What an answer of a model may take: a prompt's tokens, and with those of the answer between
    `least` and `most`."""

    model: str
    prompt_tokens: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What one principal's answers of one day took from one model; `day` is YYYY-MM-DD in UTC."""

    principal_id: str
    day: str
    model: str
    answers: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request speaks for. Everything that is kept or cached belongs to one.

    `requests_per_minute` None: as many as there is room for.
    """

    id: str
    name: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    requests_per_minute: int | None = None
    limits: Limits = UNLIMITED


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
    limits: Limits = UNLIMITED

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_principal(self) -> Principal:
        return Principal(self.id, self.name, self.scopes, self.requests_per_minute, self.limits)


@dataclass(frozen=True, slots=True)
class Act:
    """An act of administration: who did what to which access token or model, seconds since 1970."""

    at: float
    actor: str
    act: str
    about: str
