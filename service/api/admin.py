"""`/v1/admin/tokens` and `/v1/me`: access handed out over HTTP, and what it was used for."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.api.deps import AccessTokensDep, PrincipalDep, SpendingDep
from service.api.fields import Text
from service.api.replies import Json
from service.auth.spending import since
from service.domain.access import AccessToken, Limits, Scope, Spent

router = APIRouter(tags=["access"])
DaysDep = Annotated[int, Query(ge=1, le=366, description="How many days, today among them.")]
Format = Literal["json", "csv"]
_COLUMNS = ("day", "model", "answers", "prompt_tokens", "cached_tokens", "completion_tokens")


class LimitsBody(BaseModel):
    """What a token may spend; what is not said is not limited."""

    model_config = ConfigDict(extra="forbid")

    tokens_per_minute: int | None = Field(None, ge=1)
    tokens_per_day: int | None = Field(None, ge=1)
    tokens_per_month: int | None = Field(None, ge=1)
    streams: int | None = Field(None, ge=1, description="Answers at once.")
    prompt_tokens: int | None = Field(None, ge=1, description="Of one prompt.")
    answer_tokens: int | None = Field(None, ge=1, description="Of one answer.")
    weight: float = Field(1.0, ge=0.01, le=100, description="Share of a busy engine.")
    models: list[Text] = Field(default_factory=list, description="The only ones; empty: all.")


class TokenBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text
    scopes: list[Scope] = [Scope.CHAT]
    expires_in_seconds: float | None = Field(None, gt=0, le=100 * 365 * 86400)
    requests_per_minute: int | None = Field(None, ge=1, le=100_000)
    limits: LimitsBody = LimitsBody()


class TokenReply(BaseModel):
    """An access token; `access_token`, the secret, only when it has just been made."""

    id: str
    name: str
    prefix: str
    scopes: list[Scope]
    issued_at: float
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None
    requests_per_minute: int | None
    limits: LimitsBody
    access_token: str | None = None


@router.post("/v1/admin/tokens", response_model=TokenReply)
async def create_token(
    tokens: AccessTokensDep, principal: PrincipalDep, body: TokenBody
) -> Response:
    """Make an access token; its secret is in the reply, this once."""
    wanted = body.limits.model_dump()
    limits = Limits(**{**wanted, "models": tuple(wanted["models"])})
    made, secret = await tokens.by(principal.name).create(
        body.name,
        frozenset(body.scopes),
        body.expires_in_seconds,
        body.requests_per_minute,
        limits=limits,
    )
    return Json(to_facts(made) | {"access_token": secret})


@router.get("/v1/admin/tokens", response_model=list[TokenReply])
async def list_tokens(tokens: AccessTokensDep) -> Response:
    """All access tokens, those that have ended too."""
    return Json([to_facts(token) for token in await tokens.list_all()])


@router.post("/v1/admin/tokens/{named}/rotate", response_model=TokenReply)
async def rotate_token(tokens: AccessTokensDep, principal: PrincipalDep, named: str) -> Response:
    """Replace a token's secret; the old one ends at once."""
    rotated, secret = await tokens.by(principal.name).rotate(named)
    return Json(to_facts(rotated) | {"access_token": secret})


@router.delete("/v1/admin/tokens/{named}", response_model=TokenReply)
async def revoke_token(tokens: AccessTokensDep, principal: PrincipalDep, named: str) -> Response:
    """End a token for good."""
    return Json(to_facts(await tokens.by(principal.name).revoke(named)))


@router.get("/v1/admin/audit")
async def read_audit(
    tokens: AccessTokensDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """What was done to access tokens and models, and by whom, the newest first."""
    return Json([asdict(act) for act in await tokens.acts(limit)])


@router.get("/v1/admin/usage")
async def read_usage(
    spending: SpendingDep, days: DaysDep = 30, format: Format = "json"
) -> Response:
    """Everybody's usage, by access token's id, day (UTC) and model."""
    found = await spending.spent(None, since(days, time.time()))
    return _usage_reply(found, format, ("principal_id", *_COLUMNS))


@router.get("/v1/me/usage")
async def read_own_usage(
    spending: SpendingDep, principal: PrincipalDep, days: DaysDep = 30, format: Format = "json"
) -> Response:
    """The caller's own usage, by day (UTC) and model."""
    found = await spending.spent(principal.id, since(days, time.time()))
    return _usage_reply(found, format, _COLUMNS)


def to_facts(token: AccessToken) -> dict[str, Any]:
    """A token for programs, without what proves it; times in seconds since 1970."""
    facts = asdict(token)
    del facts["digest"]
    facts["scopes"] = sorted(scope.value for scope in token.scopes)
    return facts


def _usage_reply(found: list[Spent], kind: Format, columns: tuple[str, ...]) -> Response:
    rows = [{name: asdict(spent)[name] for name in columns} for spent in found]
    if kind == "json":
        return Json({"object": "list", "data": rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")
