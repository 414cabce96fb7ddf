"""A tiny judge for tests of the supervisor: reports what the model's conduct says of its role.

`weigh` and `trial` in a model's conduct are the JSON that is reported; one that waits for a file is
`{"wait": PATH}` beside it. Its first argument is the role; the model is found by its path, or by
the socket's directory and its name.
"""

import json
import os
import sys
import time
from pathlib import Path

role, fd = sys.argv[1], int(sys.argv[sys.argv.index("--status-fd") + 1])
if role == "weigh":
    conduct = Path(sys.argv[sys.argv.index("--model-path") + 1])
else:
    socket, name = (sys.argv[sys.argv.index(f"--{key}") + 1] for key in ("socket", "model-name"))
    conduct = Path(socket).parent.parent / f"{name}.json"
verdict = json.loads(conduct.read_text()).get(role, {})
while "wait" in verdict and not Path(verdict["wait"]).exists():
    time.sleep(0.02)
if "exit_code" in verdict:
    sys.exit(verdict["exit_code"])
weighed: dict[str, object] = {"event": "weighed", "fits": True}
usual = weighed if role == "weigh" else {"event": "passed"}
os.write(fd, json.dumps({**usual, **verdict}).encode() + b"\n")
