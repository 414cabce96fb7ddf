"""How the page comes by its cookie: somebody pastes an access token, once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from service.api.access import COOKIE, address_of, refuse_other_sites
from service.api.deps import DoorDep
from service.api.replies import Json
from service.domain.errors import RateLimited, Unauthenticated

COOKIE_SECONDS = 90 * 86400  # the token's own expiry may come sooner, and holds

router = APIRouter(tags=["access"])


class LoginBody(BaseModel):
    access_token: str = Field(description="As `parley token create` printed it.")


class LoginState(BaseModel):
    """Whether an access token is needed here, and whether the cookie holds a valid one."""

    required: bool
    granted: bool


@router.get("/login", response_model=LoginState)
async def login_state(http_request: Request, door: DoorDep) -> Response:
    """Whether to ask for an access token, without trying and failing."""
    if await door.is_open():
        return Json({"required": False, "granted": True})
    secret = http_request.cookies.get(COOKIE)
    granted = False
    if secret is not None:
        try:
            await door.admit(secret, address_of(http_request))
            granted = True
        except (Unauthenticated, RateLimited):
            granted = False
    return Json({"required": True, "granted": granted})


@router.post("/login", status_code=204)
async def login(http_request: Request, body: LoginBody, door: DoorDep) -> Response:
    """Keep a valid access token in a cookie that scripts can't read and other sites can't use."""
    refuse_other_sites(http_request, where_unknown=True)
    secret = body.access_token.strip()
    reply = Response(status_code=204)
    if not await door.is_open():
        await door.admit(secret, address_of(http_request))
        _set_cookie(http_request, reply, secret, COOKIE_SECONDS)
    return reply


@router.delete("/login", status_code=204)
async def logout(http_request: Request) -> Response:
    """Forget the cookie. The access token itself lives on."""
    refuse_other_sites(http_request, where_unknown=True)
    reply = Response(status_code=204)
    _set_cookie(http_request, reply, "", 0)
    return reply


def _set_cookie(http_request: Request, reply: Response, value: str, seconds: int) -> None:
    reply.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=http_request.url.scheme == "https",
    )
