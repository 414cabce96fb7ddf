"""A lock, as another Python reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.setup.commands import Pip
from deploy.setup.locks import read_lock
from deploy.setup.wheelhouse import lines_for, provide_wheels

LOCK = f"""numpy==2.4 ; python_version < '3.12' \\
    --hash=sha256:{"a" * 64}
numpy==2.5 ; python_version >= '3.12' \\
    --hash=sha256:{"b" * 64}
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:{"c" * 64}
llama-cpp-python==0.3.36 \\
    --hash=sha256:{"d" * 64}
"""


@pytest.mark.parametrize(("python", "version"), [("3.11", "2.4"), ("3.12", "2.5")])
def test_conditions_are_weighed_for_the_python_that_will_read_them(
    tmp_path: Path, python: str, version: str
) -> None:
    (tmp_path / "lock").write_text(LOCK)
    lines = lines_for(read_lock(tmp_path / "lock"), python)
    assert [line.split(" ")[0] for line in lines] == [
        f"numpy=={version}",
        "llama-cpp-python==0.3.36",
    ]
    assert lines[0].endswith(f" --hash=sha256:{'a' * 64 if version == '2.4' else 'b' * 64}\n")


def test_wheels_are_fetched_once_and_never_the_compiled_one(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\n'
        'mkdir "$2"; cp "$4" "$2/asked.whl"; echo x >>"$0.calls"\n'
    )
    python.chmod(0o755)
    (tmp_path / "lock").write_text(LOCK)
    for _ in range(2):
        folder = provide_wheels([tmp_path / "lock"], "3.12", tmp_path / "cache", Pip(python))
        assert "llama" not in (folder / "asked.whl").read_text()
    assert (tmp_path / "python.calls").read_text() == "x\n"
