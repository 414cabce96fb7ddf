"""A tiny gunicorn for tests of the supervisor: answers every connection, follows the status."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

if "--exit-code" in sys.argv:
    sys.exit(int(sys.argv[sys.argv.index("--exit-code") + 1]))
ENDS = {signal.SIGTERM, signal.SIGQUIT}
# Waited for, not handled: a handler runs in the main thread, which a signal that another thread
# took may leave asleep.
signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
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


def follow() -> None:
    while follower.recv(65536):
        pass


for task in (answer, follow):
    threading.Thread(target=task, daemon=True).start()
signal.sigwait(ENDS)
os._exit(0)
