"""Another model takes over: fetched where need be, weighed, loaded beside the present one, tried,
and only then appointed. Where anything fails, the present one stays, or comes back."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from service.domain.model import Mode
from service.ipc.status import SwitchPhase, SwitchStatus
from service.supervisor.children import STATUS_FD, Child, Children, Report, describe_exit
from service.supervisor.engine import Seat
from service.supervisor.fetch import Fetch
from service.supervisor.fleet import Fleet
from service.supervisor.loop import Loop
from service.supervisor.plan import Model, Plan

# Each takes memory for its weights and its conversations.
MAX_GUESTS = 3
# Golden prompts are short; an engine that has not answered them by then is of no use.
TRIAL_SECONDS = 180.0
WEIGH_SECONDS = 120.0


class Owner(Protocol):
    """Whoever asked for the switch."""

    def switch_progressed(self) -> None:
        """Something that the status tells has changed."""
        ...

    def switch_succeeded(self, seat: Seat) -> None:
        """The seat's model has been appointed; the others of its mode still have theirs."""
        ...

    def switch_failed(self, reason: str) -> None:
        """What was there before answers as before, or is on its way back."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What a switch works with."""

    plan: Plan
    fleet: Fleet
    loop: Loop
    children: Children


class Switch:
    """One switch to `target`, from the command to its end. `status` tells how far it is.

    With `beside`, the target becomes a guest, and the present model goes on for everybody else.
    """

    def __init__(
        self, number: int, target: Model, means: Means, owner: Owner, *, beside: bool = False
    ) -> None:
        self._target = target
        self._means = means
        self._owner = owner
        self._beside = beside
        self._previous = means.fleet.of_everybody(target.mode)
        self._seat: Seat | None = None
        self._fetch: Fetch | None = None
        self._child: Child | None = None
        self._report: Report = {}
        self._id = number
        self._phase = SwitchPhase.WEIGHING
        self._reason: str | None = None

    @property
    def is_over(self) -> bool:
        return self._phase in (SwitchPhase.DONE, SwitchPhase.FAILED)

    @property
    def mode(self) -> Mode:
        return self._target.mode

    @property
    def status(self) -> SwitchStatus:
        return SwitchStatus(
            self._id,
            self._target.name,
            self._previous.model.name if self._previous is not None else "",
            self._phase,
            self._progress(),
            self._reason,
            self._target.mode,
        )

    def start(self) -> None:
        same = [seat for seat in self._seats_there() if seat.model.is_same(self._target)]
        if same and not (same[0].guest and not self._beside):
            self._means.fleet.wake()
            self._enter(SwitchPhase.DONE)
            return
        if self._beside and len(self._guests()) >= MAX_GUESTS:
            names = ", ".join(seat.model.name for seat in self._guests())
            self._fail(f"{MAX_GUESTS} models ({names}) serve beside the usual one already.")
            return
        if self._target.path is not None:
            self._weigh()
            return
        command = self._means.plan.commands.download
        if command is None:
            self._fail(f"{self._target.name} is not on this machine, and nothing may be fetched.")
            return
        self._enter(SwitchPhase.FETCHING)
        means = self._means
        self._fetch = Fetch(self._target, command, means.loop, means.children, self)
        self._fetch.start()

    def cancel(self) -> None:
        """The service stops; its engines are none of our business any more."""
        if self._fetch is not None:
            self._fetch.cancel()
        if self._child is not None:
            self._child.signal_group(signal.SIGKILL)
        self._phase = SwitchPhase.FAILED
        self._reason = "The service stopped."

    # ---------------------------------------------------------------------- what the fleet does

    def engines_changed(self) -> None:
        """An engine may have gone for which we were waiting."""
        if self._phase is SwitchPhase.DRAINING and self._previous not in self._means.fleet.seats:
            self._load()

    def owns(self, seat: Seat) -> bool:
        return seat is self._seat and not self.is_over

    def engine_ready(self) -> None:
        if self._phase is SwitchPhase.LOADING:
            self._try()

    def model_failed(self, reason: str) -> None:
        self._seat = None
        self._fail(reason)

    # ---------------------------------------------------------------------- what the fetch does

    def fetch_progressed(self) -> None:
        self._owner.switch_progressed()

    def fetched(self, model: Model) -> None:
        self._target = model
        self._weigh()

    def fetch_failed(self, reason: str, retry_seconds: float | None) -> None:
        if self._fetch is not None:
            self._fetch.cancel()  # whoever asked can ask again, and what has arrived is kept
        self._fail(reason)

    # ------------------------------------------------------------------------------- the course

    def _weigh(self) -> None:
        """Whether there is memory for both, for the new one alone, or not even for that."""
        command = self._means.plan.commands.weigh
        if command is None:
            self._load()
            return
        self._enter(SwitchPhase.WEIGHING)
        old = self._previous.engine if self._previous is not None else None
        words = [
            *command,
            *("--model-path", str(self._target.path), "--mode", self._target.mode),
            *("--leaving-pid", str(old.child.pid if old is not None else 0)),
        ]
        self._spawn("weigh", words, WEIGH_SECONDS, self._weighed)

    def _weighed(self, returncode: int) -> None:
        match self._report.get("event"):
            case "weighed" if self._report.get("fits"):
                self._load()
            case "weighed" if self._report.get("fits_alone") and self._previous is not None:
                if self._beside:
                    self._fail(
                        f"There is no memory for {self._target.name} beside "
                        f"{self._previous.model.name}; for everybody it can take over, which takes "
                        "an access token with the scope models:switch."
                    )
                else:
                    self._make_room(self._previous)
            case "weighed" | "failed":
                self._fail(str(self._report.get("reason")))
            case _:
                how = describe_exit(returncode)
                self._fail(f"{self._target.path} cannot be loaded: reading it ended with {how}.")

    def _make_room(self, previous: Seat) -> None:
        self._enter(SwitchPhase.DRAINING)
        for guest in self._guests():
            self._means.fleet.retire(guest)
        self._means.fleet.retire(previous)
        self.engines_changed()

    def _load(self) -> None:
        self._enter(SwitchPhase.LOADING)
        self._seat = self._means.fleet.start(self._target, on_trial=True)

    def _try(self) -> None:
        command = self._means.plan.commands.trial
        engine = self._seat.engine if self._seat is not None else None
        if command is None or engine is None or self._target.mode is not Mode.CHAT:
            self._succeed()
            return
        self._enter(SwitchPhase.TRYING)
        words = [*command, "--socket", engine.socket, "--model-name", self._target.name]
        self._spawn("trial", words, TRIAL_SECONDS, self._tried)

    def _tried(self, returncode: int) -> None:
        if self._report.get("event") == "passed":
            self._succeed()
            return
        how = f"the trial ended with {describe_exit(returncode)}"
        reason = self._report.get("reason") or f"{self._target.name} was not tried: {how}."
        self._fail(str(reason))

    def _succeed(self) -> None:
        seat = self._seat
        if seat is None:  # it died in this moment, and `model_failed` has said so
            return
        if self._beside:
            self._means.fleet.admit(seat)
        else:
            self._means.fleet.appoint(seat)
        self._phase = SwitchPhase.DONE
        self._owner.switch_succeeded(seat)

    def _fail(self, reason: str) -> None:
        if self.is_over:
            return
        self._phase = SwitchPhase.FAILED
        if self._child is not None:
            self._child.signal_group(signal.SIGKILL)
        if self._seat is not None:
            self._means.fleet.dismiss(self._seat)
        self._reason = reason + self._go_back()
        self._owner.switch_failed(self._reason)

    def _go_back(self) -> str:
        """Have the previous model answer, and say so."""
        previous = self._previous
        if previous is None:
            return ""
        if not previous.retired:
            return f" {previous.model.name} goes on answering."
        self._means.fleet.start(previous.model)
        return f" {previous.model.name} is started again."

    # ----------------------------------------------------------------------------------- inside

    def _guests(self) -> list[Seat]:
        return [seat for seat in self._seats_there() if seat.guest]

    def _seats_there(self) -> list[Seat]:
        """The seats that serve, the one for everybody first."""
        seats = [s for s in self._means.fleet.seats_of(self._target.mode) if not s.retired]
        return sorted(seats, key=lambda seat: seat is not self._previous)

    def _enter(self, phase: SwitchPhase) -> None:
        self._phase = phase
        self._owner.switch_progressed()

    def _spawn(
        self, role: str, words: list[str], seconds: float, then: Callable[[int], None]
    ) -> None:
        """Run a child that reports; `then(returncode)` when it has ended, unless all is over."""
        self._report = {}

        def hear(report: Report) -> None:
            self._report = report

        def end(returncode: int) -> None:
            self._child = None
            if not self.is_over:
                then(returncode)

        try:
            child = self._means.children.spawn(
                role, [*words, "--status-fd", STATUS_FD], on_exit=end, on_report=hear
            )
        except OSError as error:  # no memory or process left for one more
            self._fail(f"{self._target.name} cannot be tried ({error}).")
            return
        self._child = child
        self._means.loop.call_in(seconds, lambda: self._end_late(child))

    def _end_late(self, child: Child) -> None:
        if self._child is child:
            child.signal_group(signal.SIGKILL)

    def _progress(self) -> float:
        if self._phase is SwitchPhase.FETCHING and self._fetch is not None:
            status = self._fetch.status
            if status is not None and status.num_bytes_total:
                return round(status.num_bytes_done / status.num_bytes_total, 4)
            return 0.0
        engine = self._seat.engine if self._seat is not None else None
        if self._phase is SwitchPhase.LOADING and engine is not None:
            return engine.progress
        return 1.0 if self._phase in (SwitchPhase.TRYING, SwitchPhase.DONE) else 0.0
