"""What llama.cpp can compute with here: kernels for this processor, OpenBLAS, graphics cards.

A build for one machine has its kernels linked in. A portable one has a library for each kind of
processor beside it (`GGML_BACKEND_DL`, `GGML_CPU_ALL_VARIANTS`); the best that runs here has to
be loaded before the first model.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from service.domain.errors import ModelFileError
from service.engine import library
from service.engine.planning import machine
from service.log import get_logger
from service.settings import EngineSettings

_log = get_logger(__name__)

# ggml_backend_dev_type
_CPU, _GPU, _INTEGRATED_GPU = 0, 1, 2

_count = library.function("ggml_backend_reg_count", ctypes.c_size_t)
_load_all = library.function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
_by_name = library.function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)
_unload = library.function("ggml_backend_unload", None, ctypes.c_void_p)
_register = library.function("ggml_backend_register", None, ctypes.c_void_p)
_device_count = library.function("ggml_backend_dev_count", ctypes.c_size_t)
_device = library.function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
_device_type = library.function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
_device_text = library.function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
_device_memory = library.function(
    "ggml_backend_dev_memory",
    None,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
)

_blas_device = library.function(
    "ggml_backend_reg_dev_get", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)
_supports = library.function(
    "ggml_backend_dev_supports_op", ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p
)
# The place of `supports_op` in ggml_backend_device_i; more than a ggml_tensor takes.
_SUPPORTS_ENTRY, _OPERATION_BYTES = 9, 4096
_POINTER = ctypes.c_void_p
# A C function that looks at nothing and answers 0, which is no.
_NEVER = ctypes.cast(ctypes.CDLL(None).pthread_condattr_destroy, ctypes.c_void_p).value

_LOADED_CPU = re.compile(r"loaded CPU backend from .*libggml-cpu-?(\w*)\.so")


@dataclass(frozen=True, slots=True)
class GraphicsCard:
    """A device that layers can be put on; memory in bytes."""

    name: str
    free: int
    total: int


@cache
def load() -> str:
    """Make this processor's kernels available, once; returns what they were compiled for.

    That is `native` for kernels that are linked in, else llama.cpp's name of the variant. Raises
    `ModelFileError` when none of the variants runs on this processor.
    """
    if _count():
        return "native"
    folder = library.directory()
    with library.overhearing() as lines:
        _load_all(bytes(folder))
    if not _devices(_CPU):
        name, _ = machine.processor()
        raise ModelFileError(
            f"This processor ({name or 'of an unknown kind'}) runs none of the kernels in "
            f"{folder}; compile llama-cpp-python on this machine (`make setup`)."
        )
    variant = next((m[1] for line in lines if (m := _LOADED_CPU.search(line))), "") or "generic"
    _log.info("kernels_chosen", variant=variant)
    return variant


def graphics_cards() -> list[GraphicsCard]:
    """The devices that layers would be put on; empty where this build or machine has none."""
    cards = []
    for device in [*_devices(_GPU), *_devices(_INTEGRATED_GPU)]:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _device_memory(device, ctypes.byref(free), ctypes.byref(total))
        text = (_device_text(device) or b"").decode("utf-8", "replace")
        cards.append(GraphicsCard(text, free.value, total.value))
    return cards


def uses_cards(settings: EngineSettings) -> bool:
    """Whether there is a graphics card, and it is to compute."""
    return settings.gpu_layers != 0 and bool(graphics_cards())


def on_card(settings: EngineSettings, choice: str) -> bool:
    """Whether something that pays on graphics cards is to be done: `choice` is on, off, or auto."""
    if choice != "auto":
        return choice == "on"
    return uses_cards(settings)


def check_cards(settings: EngineSettings) -> None:
    """Say so once where layers should go to a graphics card and there is none: the processor
    computes them. Raises `ModelFileError` for a main card that does not exist."""
    cards = graphics_cards()
    if not cards:
        if settings.gpu_layers > 0:
            _log.warning(
                "no_graphics_card",
                reason=f"PARLEY_ENGINE__GPU_LAYERS={settings.gpu_layers} has no effect: "
                "this build or this machine has no graphics card; the processor computes.",
            )
        return
    if settings.main_gpu >= len(cards):
        raise ModelFileError(
            f"PARLEY_ENGINE__MAIN_GPU={settings.main_gpu} does not exist; there "
            f"{'is one graphics card, 0' if len(cards) == 1 else f'are {len(cards)}, from 0 on'}."
        )
    for index, card in enumerate(cards):
        _log.info("graphics_card", index=index, name=card.name, free=card.free, total=card.total)


def has_blas() -> bool:
    """Whether OpenBLAS is in use for contexts that are created from now on."""
    return bool(_by_name(b"BLAS"))


class Blas:
    """OpenBLAS, to be taken out and put back. A context keeps the backends of its birth, but may
    be told to `use` this one or not, from one call to the next.

    llama.cpp asks a backend about each operation whether it can compute that, whenever the shape of
    a call is new. One that always says no is not used.
    """

    def __init__(self) -> None:
        self._pointer: Any = _by_name(b"BLAS")
        # Where it is a library of its own, taking it out would also unmap it, under the contexts
        # that still use it.
        path: Path = library.directory() / "libggml-blas.so"
        self._mapped = ctypes.CDLL(str(path)) if self._pointer and path.exists() else None
        self._entry: Any = None  # in the backend's table of functions
        self._can_compute = 0
        if self._pointer:
            self._find_entry()

    @property
    def exists(self) -> bool:
        """Whether this build has it."""
        return bool(self._pointer)

    def take_out(self) -> None:
        if self._pointer:
            _unload(self._pointer)

    def put_back(self) -> None:
        if self._pointer:
            _register(self._pointer)

    @property
    def can_rest(self) -> bool:
        """Whether `use` has an effect."""
        return self._entry is not None

    def use(self, wanted: bool) -> None:
        """Let calls of a new shape be computed with it, or not; two calls of one shape should agree
        about that."""
        if self._entry is not None:
            self._entry.value = self._can_compute if wanted else _NEVER

    def _find_entry(self) -> None:
        """Where the answer to "can you compute that" comes from; tried out, for the table's layout
        is llama.cpp's own business."""
        device = _blas_device(self._pointer, 0)
        nothing = ctypes.create_string_buffer(_OPERATION_BYTES)
        entry = ctypes.c_void_p.from_address(device + _SUPPORTS_ENTRY * ctypes.sizeof(_POINTER))
        before = entry.value
        if before is None or not _supports(device, nothing):
            return
        entry.value = _NEVER
        has_effect = not _supports(device, nothing)
        entry.value = before
        if has_effect:
            self._entry, self._can_compute = entry, before


def _devices(kind: int) -> list[Any]:
    found = [_device(index) for index in range(_device_count())]
    return [device for device in found if _device_type(device) == kind]
