"""The binding's C functions, without what else is in its package.

`import llama_cpp.llama_cpp` would execute `llama_cpp/__init__.py` first. That brings chat formats,
templates, a cache on disk and sqlite3, none of which is used here: 5 MB in every engine process.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version as version_of
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any


def leave_package_unread() -> None:
    """Let `llama_cpp` stand for its folder, so that its modules are imported one by one, until
    somebody asks it for more. Nothing changes where it has been imported, or is not installed."""
    if "llama_cpp" in sys.modules:
        return
    spec = PathFinder.find_spec("llama_cpp")
    if spec is not None:
        sys.modules["llama_cpp"] = _unread(spec)


def _unread(spec: ModuleSpec) -> ModuleType:
    package = module_from_spec(spec)

    def read(name: str) -> Any:
        if spec.loader is None or (name.startswith("__") and name != "__version__"):
            raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")
        del package.__dict__["__getattr__"]  # PEP 562
        spec.loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = read
    return package


def version() -> str:
    """Of the binding, and so of llama.cpp."""
    return version_of("llama-cpp-python")
