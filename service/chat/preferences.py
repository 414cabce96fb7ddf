"""Which model answers whom: everybody's, or the one that a principal has chosen for itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from service.domain.access import Principal, Scope
from service.domain.errors import EngineUnavailable, Forbidden
from service.ipc.client import Engines
from service.ipc.status import SwitchStatus


class PreferenceStore(Protocol):
    """Keeps what was chosen, each under its principal. All methods raise `StoreUnavailable`."""

    async def choose(self, principal_id: str, conversation_id: str, model: str | None) -> None: ...

    async def chosen(self, principal_id: str, conversation_id: str) -> str | None: ...


# Brings a model in beside the present one, and returns when it answers.
Bring = Callable[[str, Principal], Awaitable[SwitchStatus]]


class Preferences:
    """What principals have chosen, and the models to it. One per worker."""

    def __init__(self, store: PreferenceStore, engines: Engines, bring: Bring) -> None:
        self._store = store
        self._engines = engines
        self._bring = bring

    async def choose(
        self, wanted: str, principal: Principal, conversation_id: str = ""
    ) -> SwitchStatus:
        """Have `wanted` answer this principal, in one conversation or in all; returns when it can.

        Raises `SwitchFailed` where there is no memory for it beside the present model, `Forbidden`
        where the principal may not chat, or not with that model, and what `Switching.complete`
        raises.
        """
        if Scope.CHAT not in principal.scopes:
            raise Forbidden(
                f"This takes an access token with the scope chat; {principal.name} has none."
            )
        allowed = principal.limits.models
        if allowed and wanted not in allowed:
            raise Forbidden(f"{principal.name} may ask {', '.join(allowed)}, not {wanted[:200]}.")
        switch = await self._bring(wanted, principal)
        chosen = None if switch.model == self._usual() and not conversation_id else switch.model
        await self._store.choose(principal.id, conversation_id, chosen)
        return switch

    async def model_for(self, principal: Principal, conversation_id: str | None) -> str | None:
        """The model that answers, brought in where it has left; None: the one for everybody."""
        chosen = await self._store.chosen(principal.id, conversation_id or "")
        if chosen is None or chosen == self._usual():
            return None
        if self._engines.guest(chosen) is None:
            await self._bring(chosen, principal)
            await self._reached(chosen)
        return chosen

    def _usual(self) -> str | None:
        """What answers everybody who has chosen nothing."""
        status = self._engines.status
        current = status.current_engine
        return current.model if current is not None else status.wanted_model

    async def _reached(self, model: str) -> None:
        """Returns when this worker, too, has reached the guest."""
        while self._engines.guest(model) is None:
            if not any(engine.model == model for engine in self._engines.status.engines):
                raise EngineUnavailable(f"{model} has left again.", retry_after_seconds=1)
            if model == self._usual():
                return
            await self._engines.news()
