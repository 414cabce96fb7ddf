"""No core files: one would hold what people have written, and the tokens they came with."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_core_files() -> None:
    """From now on this process leaves no core file, however it ends. Each process that sees
    contents or secrets calls this once it runs: a program that is started inherits the limit only,
    and where the kernel hands core files to a program instead of writing them, that is not asked.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
