"""A chat that is too long, made shorter by whole exchanges."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from service.domain.chat import ChatRequest, Message, Role


async def truncated(
    request: ChatRequest, fits: Callable[[ChatRequest], Awaitable[bool]]
) -> ChatRequest:
    """The request without as many of its oldest exchanges as it takes to fit.

    An exchange is what the user said with all that followed it: answers, calls and what tools
    answered to them. System messages and the last exchange always stay, whether or not that fits.
    """
    starts = _starts(request.messages)
    fewest, most = 0, max(0, len(starts) - 1)  # how many are dropped
    candidate = 0  # mostly, none have to be
    while fewest < most:
        if await fits(_without(request, starts[candidate])):
            most = candidate
        else:
            fewest = candidate + 1
        candidate = (fewest + most) // 2
    return _without(request, starts[most]) if starts else request


def _starts(messages: tuple[Message, ...]) -> list[int]:
    """Where each exchange begins; the first takes what stands before it."""
    told = [i for i, message in enumerate(messages) if message.role is not Role.SYSTEM]
    begun = [
        at
        for before, at in zip([None, *told], told, strict=False)
        if messages[at].role is Role.USER
        and (before is None or messages[before].role is not Role.USER)
    ]
    return [0, *begun[1:]]


def _without(request: ChatRequest, stop: int) -> ChatRequest:
    """The request without what comes before `stop`, but for system messages."""
    kept = tuple(
        message
        for at, message in enumerate(request.messages)
        if at >= stop or message.role is Role.SYSTEM
    )
    return replace(request, messages=kept) if len(kept) < len(request.messages) else request
