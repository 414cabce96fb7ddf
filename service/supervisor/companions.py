"""The models of other modes than chat that run beside the one that answers chats."""

from __future__ import annotations

from service.supervisor.children import Children
from service.supervisor.fetch import Fetch
from service.supervisor.fleet import Fleet
from service.supervisor.loop import Loop
from service.supervisor.plan import Model, Plan


class Companions:
    """Starts them, after fetching what is not there yet. That one fails is logged, and no more:
    the others go on."""

    def __init__(self, plan: Plan, loop: Loop, children: Children, fleet: Fleet) -> None:
        self._plan = plan
        self._loop = loop
        self._children = children
        self._fleet = fleet
        self._fetches: list[Fetch] = []

    def start(self) -> None:
        command = self._plan.commands.download
        for model in self._plan.companions:
            if model.path is not None:
                self._fleet.start(model)
            elif command is not None:
                fetch = Fetch(model, command, self._loop, self._children, self)
                self._fetches.append(fetch)
                fetch.start()
            else:
                self._missing(f"{model.name} is not on this machine.")

    def cancel(self) -> None:
        for fetch in self._fetches:
            fetch.cancel()

    def fetch_progressed(self) -> None:
        """Nobody is told: chats do not wait for it."""

    def fetched(self, model: Model) -> None:
        self._fleet.start(model)

    def fetch_failed(self, reason: str, retry_seconds: float | None) -> None:
        self._missing(reason)

    def _missing(self, reason: str) -> None:
        self._fleet.journal.warning("companion_missing", reason)
