"""Have another model answer: the use case behind every way to ask for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

from service.auth.tokens import AccessTokens
from service.domain.access import Principal, Scope
from service.domain.errors import Conflict, Forbidden, ModelFileError, SwitchFailed
from service.ipc.client import Engines
from service.ipc.command import SwitchCommand
from service.ipc.status import Phase, ServiceStatus, SwitchPhase, SwitchStatus
from service.models.gguf import check_model_file
from service.models.registry import known, resolve
from service.models.source import ModelSource
from service.settings import Settings


class Switching:
    """Asks the supervisor for other models, and follows what becomes of them. One per worker.
    What everybody gets by it is noted among the acts that `tokens` keeps."""

    def __init__(
        self, engines: Engines, settings: Settings, tokens: AccessTokens | None = None
    ) -> None:
        self._engines = engines
        self._tokens = tokens
        self._models_dir = settings.models_dir
        self._offline = settings.model.offline

    @property
    def status(self) -> ServiceStatus:
        return self._engines.status

    async def news(self) -> None:
        """Returns when `status` may have changed."""
        await self._engines.news()

    async def begin(
        self, wanted: str, principal: Principal, *, beside: bool = False
    ) -> SwitchStatus:
        """Ask for `wanted` (a name, REPO:FILE, or a path) to answer everybody, or `beside` the
        present model to answer those who ask for it; how far that is at first.

        Raises `ModelNotFound`, `ModelFileError`, `Forbidden` for a path from whom it does not
        belong to, `Conflict` while another switch goes on, and `EngineUnavailable`.
        """
        source = resolve(wanted, self._models_dir)
        if source.path is not None and wanted.strip().lower() not in known(self._models_dir):
            _refuse_paths(wanted, principal)
        command = replace(self._to_command(source), beside=beside)
        if command.path is None and Scope.MODELS_SWITCH not in principal.scopes:
            raise Forbidden(
                f"{source.name} is not on this machine; to have it fetched takes an access token "
                "with the scope models:switch."
            )
        number = await self._engines.switch(command)
        if self._tokens is not None and not beside:
            await self._tokens.by(principal.name).note("switch", source.name)
        return await self._first_word(number)

    async def complete(
        self, wanted: str, principal: Principal, *, beside: bool = False
    ) -> SwitchStatus:
        """As `begin`, until the model answers. Raises `SwitchFailed` where it does not."""
        started = await self.begin(wanted, principal, beside=beside)
        async for status in self.states():
            switch = status.switch
            if switch is None or switch.id != started.id:
                raise Conflict(f"Another switch began before the one to {started.model} was seen.")
            if switch.phase is SwitchPhase.FAILED:
                raise SwitchFailed(switch.reason or f"The switch to {switch.model} failed.")
            if switch.is_over:
                return switch
        raise SwitchFailed("The service stopped before the switch was over.")

    async def bring(self, wanted: str, principal: Principal) -> SwitchStatus:
        """As `complete`, beside the present model; waits for its turn where another switch goes
        on."""
        while True:
            try:
                return await self.complete(wanted, principal, beside=True)
            except Conflict:
                await self._engines.news()

    async def states(self) -> AsyncGenerator[ServiceStatus, None]:
        """The present status, and every change of it until the service stops."""
        told: ServiceStatus | None = None
        while True:
            status = self._engines.status
            if status == told:
                await self._engines.news()
                continue
            told = status
            yield status
            if status.phase is Phase.DRAINING:
                return

    async def _first_word(self, number: int) -> SwitchStatus:
        async for status in self.states():
            if status.switch is not None and status.switch.id >= number:
                return status.switch
        raise SwitchFailed("The service stopped before the switch began.")

    def _to_command(self, source: ModelSource) -> SwitchCommand:
        path: Path | None = source.local_path(self._models_dir)
        if path is not None and source.needs_hub and not path.is_file():
            if self._offline:
                raise ModelFileError(
                    f"{source.name} is not on this machine (it would be {path}), "
                    "and PARLEY_MODEL__OFFLINE forbids fetching it."
                )
            path = None
        if path is not None:
            check_model_file(path)
        adapters = tuple(str(adapter) for adapter in source.adapters)
        return SwitchCommand(source.name, path, source.wanted, source.mode, adapters)


def _refuse_paths(wanted: str, principal: Principal) -> None:
    if Scope.ADMIN not in principal.scopes:
        raise Forbidden(
            f"{wanted[:200]!r} is a path on the service's machine, which takes an access token "
            "with the scope admin; names and REPO:FILE do not."
        )
