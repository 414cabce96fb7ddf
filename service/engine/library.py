"""llama.cpp as this process has loaded it: its log, its last words, and what the binding lacks.

The wheel holds several copies of ggml; every symbol is taken through the `libllama` that the
binding opened, so that it is the copy in use.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from service.log import get_logger

_log = get_logger(__name__)

# ggml_log_level; 5 continues the line before.
_WARN, _ERROR, _CONTINUED = 3, 4, 5

_LEVELS = {_WARN: "warning", _ERROR: "error"}

# Said of every model, or of every computation that we aborted ourselves (its status is 1, the
# call returns 2): of no use to whoever reads the log at night.
_NOISE = (
    "n_ctx_seq",
    "is not marked as EOG",
    "n_ctx is not divisible",
    "compute_async failed with error 1",
    "compute status: 1",
    "failed to decode, ret = 2",
    "removing memory module entries",
    "dummy tokens",
)


_FUNCTIONS = re.compile(r"^(?:(?:\w+|error loading model): )+")


class _Journal:
    """Passes llama.cpp's warnings and errors on to our log, and remembers the latest errors.

    The callbacks live as long as the process: llama.cpp keeps their addresses.
    """

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.overheard: list[str] | None = None
        self.log_callback = llama.llama_log_callback(self._on_log)
        self.abort_callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(self._on_abort)

    def _on_log(self, level: int, text: bytes, _user_data: object) -> None:
        if self.overheard is not None:
            self.overheard.append(text.decode("utf-8", "replace").strip())
        if level not in _LEVELS:
            return
        line = text.decode("utf-8", "replace").strip()
        if not line or any(noise in line for noise in _NOISE):
            return
        if level == _ERROR:
            self.errors.append(line)
        _log.log(30 if level == _WARN else 40, "llama_cpp_said", text=line)

    def _on_abort(self, text: bytes) -> None:
        _log.critical("llama_cpp_aborted", text=text.decode("utf-8", "replace").strip())


_journal = _Journal()


def start() -> None:
    """Make llama.cpp ready in this process; harmless when done before.

    Without `GGML_NO_BACKTRACE` a failed assertion starts a debugger and delays the restart by
    seconds.
    """
    _libc.setenv(b"GGML_NO_BACKTRACE", b"1", 1)
    llama.llama_log_set(_journal.log_callback, ctypes.c_void_p())
    _set_abort_callback(_journal.abort_callback)
    llama.llama_backend_init()


def log_callback() -> Any:
    """Where the libraries around llama.cpp are to say what they have to."""
    return _journal.log_callback


def directory() -> Path:
    """Where the binding found `libllama`, with the other libraries beside it."""
    return Path(llama._lib._name).parent


@contextmanager
def overhearing() -> Iterator[list[str]]:
    """Everything that llama.cpp says meanwhile, at every level, as it comes."""
    lines: list[str] = []
    around, _journal.overheard = _journal.overheard, lines
    try:
        yield lines
    finally:
        _journal.overheard = around
        if around is not None:
            around += lines


def use_one_heap() -> None:
    """Keep all threads' memory in one place, for the C library would make one for each thread, and
    what one of them frees is of no use to the others. Call before there is a second thread."""
    _libc.mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return to the system what was freed; the C library would keep it for later."""
    _libc.malloc_trim(0)


def forget_errors() -> None:
    """Start a new account for `last_error`."""
    _journal.errors.clear()


def last_error() -> str:
    """What llama.cpp complained about first since `forget_errors`: the root, not its echoes.

    Without the names of the functions that pass it on, and with a full stop.
    """
    if not _journal.errors:
        return "llama.cpp gave no reason."
    return _FUNCTIONS.sub("", _journal.errors[0]).rstrip(".") + "."


def function(name: str, result: Any, *arguments: Any, keep_gil: bool = False) -> Callable[..., Any]:
    """An exported C function under a prototype of our own.

    `keep_gil` is for calls of a few microseconds at most, where giving up the interpreter lock
    and taking it back costs more than the call.
    """
    kind = ctypes.PYFUNCTYPE if keep_gil else ctypes.CFUNCTYPE
    bound: Callable[..., Any] = kind(result, *arguments)((name, llama._lib))
    return bound


_libc = ctypes.CDLL(None)
# malloc.h
_M_ARENA_MAX = -8
_libc.setenv.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
_set_abort_callback = function("ggml_set_abort_callback", ctypes.c_void_p, ctypes.c_void_p)

# A C function that reads a flag, without the interpreter: llama.cpp calls it once per graph node.
_atoi = ctypes.cast(_libc.atoi, llama.ggml_abort_callback)


class AbortFlag:
    """Lets any thread cut a running `llama_decode` short within one graph node (CPU only)."""

    def __init__(self, context: Any) -> None:
        self._flag = ctypes.create_string_buffer(b"0")
        llama.llama_set_abort_callback(context, _atoi, ctypes.cast(self._flag, ctypes.c_void_p))

    def raise_(self) -> None:
        self._flag.value = b"1"

    def lower(self) -> None:
        self._flag.value = b"0"
