"""A tiny gunicorn for tests of the supervisor: answers every connection, follows the status."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

if "--exit-code" in sys.argv:
    sys.exit(int(sys.argv[sys.argv.index("--exit-code") + 1]))
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
signal.signal(signal.SIGQUIT, lambda number, frame: os._exit(0))
runtime = Path(os.environ["PARLEY_RUNTIME_DIR"])
assert "NOTIFY_SOCKET" not in os.environ
follower = socket.socket(socket.AF_UNIX)
follower.connect(str(runtime / "status.sock"))
listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--bind") + 1].removeprefix("fd://")))


def answer() -> None:
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"hello")
        connection.close()


threading.Thread(target=answer, daemon=True).start()
while follower.recv(65536):
    pass
signal.pause()
