"""A process goes with the one that started it, also when that one is killed outright.

prctl(2), `PR_SET_PDEATHSIG`; nothing happens on systems without it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

# Loaded here: between fork and exec nothing may be.
_libc = ctypes.CDLL(None)


def leave_with(parent: int) -> None:
    """From now on this process is terminated when its parent, `parent`, has gone; at once where
    it has gone already."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
