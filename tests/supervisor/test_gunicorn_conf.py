"""gunicorn's configuration: the graces fit into one another."""

from __future__ import annotations

import subprocess
import sys

from service import gunicorn_conf
from service.supervisor.supervisor import HTTP_GRACE_SECONDS


def test_each_grace_ends_before_the_next_one_kills() -> None:
    ends_streams = gunicorn_conf.ParleyWorker.CONFIG_KWARGS["timeout_graceful_shutdown"]
    assert isinstance(ends_streams, int)
    assert ends_streams < gunicorn_conf.graceful_timeout < HTTP_GRACE_SECONDS
    assert gunicorn_conf.graceful_timeout < gunicorn_conf.timeout


def test_gunicorn_accepts_it() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-c", "from gunicorn.app.wsgiapp import run; run()"),
            *("--check-config", "--config", "python:service.gunicorn_conf"),
            "service.api.app:create_app()",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
