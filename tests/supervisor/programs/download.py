"""A tiny download for tests of the supervisor: its first argument says what to report."""

import os
import sys
import time
from pathlib import Path

lines, fd = sys.argv[1], int(sys.argv[sys.argv.index("--status-fd") + 1])
for line in lines.splitlines():
    if line.startswith("wait "):
        while not Path(line.removeprefix("wait ")).exists():
            time.sleep(0.02)
    else:
        os.write(fd, line.encode() + b"\n")
