"""`python -m service.supervisor PLAN_JSON`: what `parley serve` turns into."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

from service.supervisor.journal import Journal
from service.supervisor.listener import close_listener, open_listener
from service.supervisor.notify import Systemd, take_systemd
from service.supervisor.plan import Plan, from_json
from service.supervisor.refusal import EXIT_MISCONFIGURED, Refusal
from service.supervisor.runtime import open_runtime_dir, prune_dead
from service.supervisor.supervisor import STOP_SIGNALS, Supervisor


def main(arguments: list[str]) -> int:
    """The exit code: 0 after a drain, 1 for a failure, 2 for what the operator has to change."""
    try:
        plan = from_json(arguments[0])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"parley: this is for `parley serve` to start, with a plan ({error}).\n")
        return EXIT_MISCONFIGURED
    journal = Journal(plan.readable, plan.log_level)
    environment = dict(os.environ)
    # Kept until there is something to stop, and to clean up after.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        _serve(plan, environment, take_systemd(environment), journal)
    except Refusal as refusal:
        journal.error("service_failed", refusal.sentence, exit_code=refusal.exit_code)
        return refusal.exit_code
    journal.info("service_stopped", "Stopped.")
    return 0


def _serve(plan: Plan, environment: dict[str, str], systemd: Systemd, journal: Journal) -> None:
    base = environment.get("XDG_RUNTIME_DIR", "")
    if not os.access(base, os.W_OK | os.X_OK):
        base = tempfile.gettempdir()
    for path in prune_dead(base):
        journal.info("leftovers_removed", f"Removed {path}, which a killed parley left.", path=path)
    listener = open_listener(plan)
    try:
        runtime = open_runtime_dir(plan.runtime_dir, base, os.getpid())
        try:
            _greet(plan, journal)
            environment["PARLEY_RUNTIME_DIR"] = str(runtime.path)
            environment["PROMETHEUS_MULTIPROC_DIR"] = str(runtime.metrics)
            Supervisor(plan, runtime, environment, systemd, journal).run(listener.fileno())
        finally:
            runtime.remove()
    finally:
        close_listener(listener, plan)


def _greet(plan: Plan, journal: Journal) -> None:
    journal.info(
        "service_started",
        f"Parley {plan.version} starts on {plan.address}; Ctrl-C stops it.",
        version=plan.version,
        address=plan.address,
        model=plan.wanted.name,
        stand_in=plan.stand_in.name if plan.stand_in is not None else None,
        pid=os.getpid(),
    )
    if plan.is_open:
        journal.warning(
            "access_is_open",
            f"{plan.address} can be reached by others and asks nobody for an access token: "
            "whoever reaches it can use it. `parley token create --name laptop` ends that.",
            host=plan.host,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
