"""gunicorn's configuration: the graces fit into one another."""

from __future__ import annotations

import subprocess
from pathlib import Path

from service import gunicorn_conf
from service.cli.serve import child_commands
from service.settings import load_settings
from service.supervisor.supervisor import HTTP_GRACE_SECONDS


def test_each_grace_ends_before_the_next_one_kills() -> None:
    ends_streams = gunicorn_conf.ParleyWorker.CONFIG_KWARGS["timeout_graceful_shutdown"]
    assert isinstance(ends_streams, int)
    assert ends_streams < gunicorn_conf.graceful_timeout < HTTP_GRACE_SECONDS
    assert gunicorn_conf.graceful_timeout < gunicorn_conf.timeout


def test_gunicorn_accepts_it_and_ignores_the_present_directory(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    for name in ("service/__init__.py", "structlog.py", "gunicorn.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    command = child_commands(load_settings())["http"]
    assert command is not None
    checked = subprocess.run(
        [*command, "--check-config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert checked.returncode == 0, checked.stderr
