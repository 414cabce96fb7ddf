"""The course of the service: start, stand-in and switch, drain, stop."""

from __future__ import annotations

import json
import signal
import time

from service.domain.errors import Conflict, EngineUnavailable, InvalidRequest, ServiceError
from service.domain.model import Mode
from service.ipc.choice import Choice, keep_choice
from service.ipc.command import accepted_line, refused_line
from service.supervisor.children import Child, Children, describe_exit
from service.supervisor.companions import Companions
from service.supervisor.engine import Seat
from service.supervisor.fetch import Fetch
from service.supervisor.fleet import Fleet
from service.supervisor.herald import Ears, Herald
from service.supervisor.journal import Journal
from service.supervisor.loop import Loop
from service.supervisor.notify import Systemd
from service.supervisor.plan import Model, Plan, to_model
from service.supervisor.refusal import EXIT_FAILED, EXIT_MISCONFIGURED, Refusal
from service.supervisor.runtime import RuntimeDir
from service.supervisor.switch import Means, Switch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A model on the disk that is not ready by then lets the stand-in answer first.
STAND_IN_AFTER_SECONDS = 2.0
# Engines end what is left shortly before the drain is over; then they get this much more.
ENGINE_GRACE_SECONDS = 2.0
# gunicorn's workers flush their last bytes: the time that gunicorn_conf gives them, and some.
HTTP_GRACE_SECONDS = 8.0
STOP_NOW_SECONDS = 1.5


class Supervisor:
    """Owns the children and decides what becomes of them."""

    def __init__(
        self,
        plan: Plan,
        runtime: RuntimeDir,
        environment: dict[str, str],
        systemd: Systemd,
        journal: Journal,
    ) -> None:
        self._plan = plan
        self._journal = journal
        self._loop = Loop()
        self._children = Children(self._loop, environment, journal)
        self._fleet = Fleet(plan, runtime, self._loop, self._children, self)
        self._herald = Herald(plan, self._loop, self._fleet, Ears(runtime, systemd, self.hear))
        self._companions = Companions(plan, self._loop, self._children, self._fleet)
        self._switch: Switch | None = None
        self._num_switches = 0
        self._http: Child | None = None
        self._fetch: Fetch | None = None
        self._refusal: Refusal | None = None
        self._draining = self._stopping_http = self._stopping_now = False

    @property
    def journal(self) -> Journal:
        return self._journal

    # ------------------------------------------------------------------------------- start

    def run(self, listener_fd: int) -> None:
        """Serve on a listening socket until stopped; no child is left afterwards.

        Raises `Refusal` where the service cannot do its work.
        """
        self._loop.on_signals(STOP_SIGNALS, self.stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # children inherit the mask
        self._start(listener_fd)
        while self._children or not self._draining:
            self._loop.run_once()
        self._herald.close()
        self._loop.close()
        if self._refusal is not None:
            raise self._refusal

    def _start(self, listener_fd: int) -> None:
        # The model first: it is what everybody waits for.
        if self._plan.wanted.path is not None:
            self._fleet.start(self._plan.wanted)
            self._loop.call_in(STAND_IN_AFTER_SECONDS, self._bring_stand_in)
        else:
            self._bring_stand_in()
        self._http = self._children.spawn(
            "http",
            [*self._plan.commands.http, "--bind", f"fd://{listener_fd}"],
            on_exit=self._http_ended,
            lend=[listener_fd],
        )
        if self._plan.wanted.path is None:
            self._start_fetch()
        self._companions.start()
        self._herald.publish()

    def _start_fetch(self) -> None:
        wanted, command, stand_in = self._plan.wanted, self._plan.commands.download, None
        if self._plan.stand_in is not None:
            stand_in = self._plan.stand_in.name
        if command is None:
            self._journal.warning("model_missing", self._plan.notice, model=wanted.name)
            return
        self._journal.info(
            "download_started",
            f"{wanted.name} is not on this machine yet and is being fetched"
            + (f"; {stand_in} answers until then." if stand_in else "."),
            model=wanted.name,
            stand_in=stand_in,
        )
        self._fetch = Fetch(wanted, command, self._loop, self._children, self)
        self._fetch.start()
        self._herald.download = self._fetch.status

    def _bring_stand_in(self) -> None:
        """Start the stand-in, where there is one and nothing answers yet."""
        stand_in = self._plan.stand_in
        if stand_in is None or stand_in.path is None or self._draining:
            return
        loading = any(seat.model == stand_in for seat in self._fleet.seats_of(Mode.CHAT))
        if self._fleet.current is None and not loading:
            self._fleet.start(stand_in)

    # ------------------------------------------------------------------------ what engines do

    def engines_changed(self) -> None:
        if self._switch is not None and not self._switch.is_over:
            self._switch.engines_changed()
            self._herald.switch = self._switch.status
        self._herald.publish()
        if self._draining:
            self._stop_http_after_engines()

    def engine_ready(self, seat: Seat) -> None:
        if self._switch is not None and self._switch.owns(seat):
            self._switch.engine_ready()
            return
        wanted = seat.model == self._fleet.wanted
        if wanted:
            self._herald.trouble = None
        # Workers must know the new engine before an old one begins to refuse.
        self._herald.publish()
        if wanted:
            self._retire_others(seat)

    def _retire_others(self, seat: Seat, patience_seconds: float = 0.0) -> None:
        for other in self._fleet.seats_of(seat.model.mode):
            if other is not seat and not (other.retired or other.guest):
                self._fleet.retire(other, patience_seconds)

    def model_failed(self, seat: Seat, reason: str, *, crashed: bool) -> None:
        if self._switch is not None and self._switch.owns(seat):
            self._switch.model_failed(reason)
            return
        if seat.model.mode is not Mode.CHAT:
            self._journal.error("companion_failed", reason, model=seat.model.name)
            return
        stand_in = self._plan.stand_in
        if stand_in is not None and seat.model == self._fleet.wanted:
            self._stay_on(stand_in, reason)
            return
        others = bool(self._fleet.seats_of(Mode.CHAT)) or self._herald.download is not None
        if stand_in is not None and others:
            self._journal.error("stand_in_failed", reason, model=seat.model.name)
            return
        self.fail(reason, EXIT_FAILED if crashed else EXIT_MISCONFIGURED)

    # ------------------------------------------------------------------------ what downloads do

    def fetch_progressed(self) -> None:
        if self._fetch is not None:
            self._herald.download = self._fetch.status
            self._herald.trouble = None
            self._herald.publish()

    def fetched(self, model: Model) -> None:
        self._journal.info("download_finished", f"{model.name} has arrived.", path=str(model.path))
        self._herald.download = None
        self._herald.trouble = None
        self._fleet.wanted = model
        self._fleet.start(model)

    def fetch_failed(self, reason: str, retry_seconds: float | None) -> None:
        if retry_seconds is None:
            self._herald.download = None
        if self._plan.stand_in is not None:
            self._stay_on(self._plan.stand_in, reason, retry_seconds)
        elif retry_seconds is None:
            self.fail(reason, EXIT_MISCONFIGURED)
        else:
            self._say_trouble(reason, retry_seconds)

    def _stay_on(self, stand_in: Model, reason: str, retry_seconds: float | None = None) -> None:
        self._say_trouble(f"{reason} {stand_in.name} answers instead.", retry_seconds)
        self._bring_stand_in()

    def _say_trouble(self, sentence: str, retry_seconds: float | None) -> None:
        self._herald.trouble = sentence
        again = f" Trying again in {retry_seconds:g} s." if retry_seconds is not None else ""
        self._journal.warning(
            "model_unavailable",
            sentence + again,
            model=self._plan.wanted.name,
            retry_in_seconds=retry_seconds,
        )
        self._herald.publish()

    # ------------------------------------------------------------------------ what is asked for

    def hear(self, line: bytes) -> bytes:
        """A command of a worker, or of the command line; the reply."""
        try:
            return accepted_line(self._obey(line))
        except ServiceError as error:
            return refused_line(error)

    def _obey(self, line: bytes) -> int:
        try:
            asked = json.loads(line)
            if asked.get("wake"):
                self._fleet.wake()
                return 0
            target, beside = to_model(asked["switch"]), bool(asked.get("beside"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(f"Not a command that is known here ({error!r}).") from error
        if self._draining:
            raise EngineUnavailable("The service is shutting down and switches no model any more.")
        if self._switch is not None and not self._switch.is_over:
            status = self._switch.status
            raise Conflict(
                f"The switch to {status.model} is still going on ({status.phase}); "
                "ask again when it is over."
            )
        self._num_switches += 1
        who = "those who ask for it" if beside else "everybody"
        self._journal.info(
            "switch_started", f"{target.name} is to answer {who} from now on.", model=target.name
        )
        means = Means(self._plan, self._fleet, self._loop, self._children)
        self._switch = Switch(self._num_switches, target, means, self, beside=beside)
        self._switch.start()
        self.switch_progressed()
        return self._num_switches

    def switch_progressed(self) -> None:
        if self._switch is not None:
            self._herald.switch = self._switch.status
        self._herald.publish()

    def switch_succeeded(self, seat: Seat) -> None:
        if seat.guest:
            self.switch_progressed()
            return
        if seat.model.mode is Mode.CHAT:
            self._remember(seat.model)
            self._forget_plan()
        # Workers must know the new engine before the old one begins to refuse.
        self.switch_progressed()
        patience = self._plan.switch_grace_seconds if seat.model.mode is Mode.CHAT else 0.0
        self._retire_others(seat, patience)

    def _remember(self, model: Model) -> None:
        """The next start serves it, too, unless the settings name another model by then."""
        if self._plan.choice_file is None:
            return
        path = str(model.path) if model.path is not None else ""
        choice = Choice(self._plan.configured, model.name, model.source, path)
        try:
            keep_choice(self._plan.choice_file, choice)
        except OSError as error:
            self._journal.warning(
                "choice_not_kept",
                f"{self._plan.choice_file} can't be written ({error.strerror}); the next start "
                f"serves {self._plan.configured} again.",
            )

    def _forget_plan(self) -> None:
        """What was wanted at the start is not wanted any more."""
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None
        self._herald.download = None
        self._herald.trouble = None
        self._herald.stand_in_model = None

    def switch_failed(self, reason: str) -> None:
        self._journal.warning("switch_failed", reason)
        self.switch_progressed()

    # ------------------------------------------------------------------------------- stop

    def stop(self, signal_number: int) -> None:
        """Let running answers finish, then go. The second time: go now."""
        if self._draining:
            self._stop_now()
            return
        self._journal.info(
            "stop_requested",
            "Stopping as soon as running answers are finished; once more stops at once.",
            signal=signal.Signals(signal_number).name,
        )
        self._begin_to_stop(self._plan.drain_seconds)
        self._fleet.drain()
        self._loop.call_in(self._plan.drain_seconds + ENGINE_GRACE_SECONDS, self._fleet.kill)
        self._stop_http_after_engines()

    def fail(self, sentence: str, exit_code: int) -> None:
        """Go now, because the service cannot do its work."""
        if not self._draining:
            self._refusal = Refusal(sentence, exit_code)
        self._stop_now()

    def _begin_to_stop(self, seconds: float) -> None:
        self._draining = True
        if self._fetch is not None:
            self._fetch.cancel()
        if self._switch is not None:
            self._switch.cancel()
        self._companions.cancel()
        self._herald.drain(time.time() + seconds)

    def _stop_now(self) -> None:
        if self._stopping_now:
            return
        self._stopping_now = True
        if not self._draining:
            self._begin_to_stop(0.0)
        self._fleet.kill()
        if self._http is not None:
            self._http.signal(signal.SIGQUIT)
        self._loop.call_in(STOP_NOW_SECONDS, self._children.kill_all)

    def _stop_http_after_engines(self) -> None:
        """Workers outlive the engines, so that each stream gets its last event."""
        if self._fleet.num_running or self._http is None or self._stopping_http:
            return
        self._stopping_http = True
        self._http.signal(signal.SIGTERM)
        self._loop.call_in(HTTP_GRACE_SECONDS, self._children.kill_all)

    def _http_ended(self, returncode: int) -> None:
        self._http = None
        if self._draining:
            return
        why = {
            3: ": a worker could not start; the reason is in the log above",
            4: ": the application could not be loaded; the reason is in the log above",
        }.get(returncode, "")
        sentence = f"gunicorn, which serves HTTP, ended with {describe_exit(returncode)}{why}."
        self.fail(sentence, EXIT_FAILED)
