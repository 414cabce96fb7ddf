"""gunicorn's configuration (`gunicorn -c python:service.gunicorn_conf`), and its worker class.

The supervisor starts gunicorn and lends it the listening socket (`--bind fd://N`). An engine
drains before gunicorn is told to stop, so what is left for gunicorn's own grace is last bytes.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
from pathlib import Path
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.base import Worker
from uvicorn_worker import UvicornWorker

from service import log
from service.core_files import forbid_core_files
from service.domain.errors import ConfigurationError
from service.leash import leave_with
from service.settings import load_settings

# Seconds for flushing: less than the supervisor waits before it kills (HTTP_GRACE_SECONDS there).
FLUSH_SECONDS = 5

try:
    _settings = load_settings()
except ConfigurationError as error:  # gunicorn turns it into "could not be loaded", exit code 1
    raise SystemExit(f"parley: {error.message}") from error


class ParleyWorker(UvicornWorker):  # type: ignore[misc]  # gunicorn's side is untyped
    """uvicorn under gunicorn; unlike the stock class it ends streams before gunicorn kills it."""

    CONFIG_KWARGS = {  # noqa: RUF012  # the name and type are the parent's
        "loop": "uvloop",
        "http": "service.api.connection:Connection",
        "lifespan": "on",
        "server_header": False,
        "access_log": False,
        "timeout_graceful_shutdown": FLUSH_SECONDS - 2,
    }


class ParleyLogger(GunicornLogger):  # type: ignore[misc]  # gunicorn's side is untyped
    """gunicorn's own lines in the one format of the service."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        configure_log("http")
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def configure_log(role: str) -> None:
    """One format; the comings and goings of workers only where somebody debugs."""
    log.configure(_settings.log, role)
    level = logging.DEBUG if _settings.log.level == "debug" else logging.WARNING
    for name in ("gunicorn.error", "uvicorn.error", "uvicorn"):
        logging.getLogger(name).setLevel(level)


def on_starting(server: Arbiter) -> None:
    """Import the application once, before the workers are forked; each makes its own from it.

    Not from the present directory, which gunicorn has just put in front of all packages.
    """
    forbid_core_files()  # nor do the workers that are forked leave any
    here = str(Path.cwd())
    sys.path[:] = [place for place in sys.path if place != here]
    importlib.import_module("service.api.app")
    gc.freeze()  # the collector would only unshare what the workers have in common


def post_fork(server: Arbiter, worker: Worker) -> None:
    """A worker whose arbiter is killed would go on listening, and nobody would know of it."""
    leave_with(worker.ppid)


def post_worker_init(worker: Worker) -> None:
    # The worker class has just given uvicorn's logger the handlers of gunicorn's.
    for name in ("uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    configure_log("worker")


def child_exit(server: Arbiter, worker: Worker) -> None:
    """A dead worker claims nothing about now any more."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415  # slow to import

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _memory_directory() -> str | None:
    """Where heartbeat files never touch a disk."""
    shared = Path("/dev/shm")  # noqa: S108  # not a file name of ours: a place
    return str(shared) if shared.is_dir() else None


worker_class: Any = ParleyWorker
logger_class: Any = ParleyLogger
workers = _settings.api.workers
# A draining worker sends no heartbeat, so `timeout` must exceed the grace.
graceful_timeout = FLUSH_SECONDS
timeout = 60
keepalive = 5
max_requests = 0
preload_app = False
accesslog = None
errorlog = "-"
worker_tmp_dir = _memory_directory()
control_socket_disable = True
# A proxy on this machine, or behind our own unix socket, may say who the client is.
forwarded_allow_ips = "*" if _settings.api.unix_socket is not None else "127.0.0.1,::1"
